"""Under gevent and eventlet, whose sockets never wait in the kernel, requests end in time and polls are cut."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, logging, socket, sys, threading
from sqspipes.brokers.sqs import calls
from sqspipes.brokers.sqs import SqsBroker
from sqspipes.errors import BrokerError

class Told(logging.Handler):
    texts = []
    def emit(self, record):
        self.texts.append(record.getMessage())

logging.getLogger("sqspipes").addHandler(Told(logging.WARNING))
calls.READ_TIMEOUT = 0.3
listener = socket.create_server(("127.0.0.1", 0))
arrived = threading.Event()

def serve():
    # One answer, then silence.
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    while connection.recv(65536):
        arrived.set()
    listener.accept()[0].recv(1)
    arrived.set()
    threading.Event().wait(30)

threading.Thread(target=serve, daemon=True).start()
port = listener.getsockname()[1]
account = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-east-1"}
broker = SqsBroker("sqs://", endpoint_url=f"http://127.0.0.1:{port}", **account)
calls, ends = broker._calls, [broker._calls.call("SendMessageBatch", {"QueueUrl": "u"})]

def ended(call):
    try:
        ends.append(call())
    except BrokerError as error:
        ends.append(f"{type(error).__name__}: {error}"[:70])

ended(lambda: calls.call("SendMessageBatch", {"QueueUrl": "u"}, queue="q"))
arrived.clear()
poll = threading.Thread(target=ended, args=[lambda: calls.poll({"QueueUrl": "u"}, queue="q")])
poll.start()
arrived.wait(20)
broker.interrupt()
poll.join(20)
print(json.dumps({"ends": ends, "told": Told.texts}), flush=True)
"""

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
def test_requests_end_in_time_and_polls_are_cut(library: str) -> None:
    program = [sys.executable, "-W", "ignore", "-c", f"{PATCHES[library]}\n{PROGRAM}"]
    found = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr[-2_000:]
    result = json.loads(found.stdout)
    first, silent, cut = result["ends"]
    assert first == {}
    assert silent.startswith("BrokerUnavailableError: SendMessageBatch on q: Read timeout")
    assert cut == "PollCutError: ReceiveMessage on q was interrupted"
    (warning,) = result["told"]
    assert "do not keep the kernel's timeouts" in warning
