"""The servers that tests need: the SQS emulator, and a proxy that counts requests and provokes failures."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# The emulator ends when its standard input does: so it goes with this process, however that one ends.
_UNTIL_PARENT_ENDS = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
sys.argv = ["ministack"]
runpy.run_module("ministack", run_name="__main__")
"""


@dataclass(frozen=True)
class Server:
    """A server that somebody started; ``url`` is its endpoint."""

    url: str


class Ministack:
    """The SQS emulator on a free port of 127.0.0.1, in a process of its own; ``url`` is its endpoint.

    ``keeps``: it survives ``pause`` and ``resume`` with all it holds.
    """

    def __init__(self, *, keeps: bool = False, start_timeout: float = 60.0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ministack-")
        self._keeps = keeps
        self._kept: socket.socket | None = None
        try:
            self._process, self.url = self._start(time.monotonic() + start_timeout)
        except BaseException:
            self._folder.cleanup()
            raise

    def stop(self) -> None:
        """End the process and remove its files."""
        self._process.kill()
        self._wait()
        self._give_port_up()
        self._folder.cleanup()

    def pause(self) -> None:
        """End the process in good order, as SIGTERM does; until ``resume`` its port refuses connections."""
        self._process.terminate()
        self._wait()
        # Without a listener, and so that no other process takes the port meanwhile.
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", self._port))

    def resume(self, *, timeout: float = 60.0) -> None:
        """Come back on the same port, with the data where it keeps them."""
        self._give_port_up()
        self._process = self._spawn(self._port)
        if not self._answers(self._process, self._port, time.monotonic() + timeout):
            raise RuntimeError(
                f"ministack did not come back; its log ends with:\n{self._log.read_text()[-2000:]}"
            )

    @property
    def _port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _wait(self) -> None:
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _give_port_up(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _start(self, deadline: float) -> tuple[subprocess.Popen[bytes], str]:
        # Between the choice of a port and its use another process may take it: then with another one.
        for _ in range(5):
            port = free_port()
            process = self._spawn(port)
            try:
                if self._answers(process, port, deadline):
                    return process, f"http://127.0.0.1:{port}"
            except BaseException:
                process.kill()
                process.wait()
                raise
        raise RuntimeError(f"ministack did not start; its log ends with:\n{self._log.read_text()[-2000:]}")

    @property
    def _log(self) -> Path:
        return Path(self._folder.name, "log")

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        ours = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "WARNING"}
        if self._keeps:
            ours |= {"PERSIST_STATE": "1", "STATE_DIR": str(Path(self._folder.name, "state"))}
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _UNTIL_PARENT_ENDS],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder.name,
                env={**os.environ, **ours, "TMPDIR": self._folder.name},
            )

    def _answers(self, process: subprocess.Popen[bytes], port: int, deadline: float) -> bool:
        """Wait until the emulator answers; False when its process has ended."""
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                return False
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                with contextlib.closing(connection):
                    connection.request("GET", "/_ministack/health")
                    if connection.getresponse().status == 200:
                        return True
        raise TimeoutError(f"ministack does not answer; its log ends with:\n{self._log.read_text()[-2000:]}")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Request:
    """A request on its way through the proxy; ``action`` is SQS's: ``SendMessageBatch``."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def action(self) -> str:
        target = next((value for key, value in self.headers.items() if key.lower() == "x-amz-target"), "")
        return target.rpartition(".")[2]

    @property
    def json(self) -> dict[str, Any]:
        """The parameters of the call."""
        return dict(json.loads(self.body or b"{}"))


@dataclass(frozen=True)
class Reply:
    """An answer to a request.

    ``sent`` is the part of the body after which the connection is cut, ``seconds`` how long it takes, in pieces.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    sent: float = 1.0
    seconds: float = 0.0

    @property
    def json(self) -> dict[str, Any]:
        """The result of the call."""
        return dict(json.loads(self.body or b"{}"))


Forward = Callable[[Request], Reply]

#: What becomes of a request: call ``forward`` or not, return a reply, or None to cut the connection.
Behaviour = Callable[[Request, Forward], Reply | None]


def forwarded(request: Request, forward: Forward) -> Reply | None:
    """Nothing happens: the request is answered by the server. To let the first of several requests pass."""
    return forward(request)


def error(status: int, code: str, message: str = "provoked by the test") -> Behaviour:
    """The request is not forwarded and answered with an error of SQS."""
    return lambda request, forward: json_reply({"__type": code, "message": message}, status, code)


def lost_request(request: Request, forward: Forward) -> Reply | None:
    """The connection is cut before the server sees the request."""
    return None


def lost_answer(request: Request, forward: Forward) -> Reply | None:
    """The server does what was asked, and the connection is cut instead of the answer."""
    forward(request)
    return None


def half_answer(request: Request, forward: Forward) -> Reply | None:
    """The server does what was asked, and the connection is cut in the middle of the answer."""
    return replace(forward(request), sent=0.5)


def trickled(seconds: float) -> Behaviour:
    """The answer comes piece by piece."""
    return lambda request, forward: replace(forward(request), seconds=seconds)


def changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Behaviour:
    """The server's result is replaced by what ``change`` makes of it."""
    return lambda request, forward: json_reply(change(forward(request).json))


def changed_request(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Behaviour:
    """The server gets what ``change`` makes of the parameters."""

    def behave(request: Request, forward: Forward) -> Reply | None:
        body = json.dumps(change(request.json)).encode()
        return forward(Request(request.method, request.path, request.headers, body))

    return behave


def json_reply(result: dict[str, Any], status: int = 200, code: str = "") -> Reply:
    """Return an answer as SQS forms it."""
    headers = {"Content-Type": "application/x-amz-json-1.0"}
    if code:
        fault = "Sender" if status < 500 else "Receiver"
        headers |= {"x-amzn-errortype": code, "x-amzn-query-error": f"{code};{fault}"}
    return Reply(status, headers, json.dumps(result).encode())


class Proxy:
    """Forwards HTTP to a server, counts SQS requests by action and provokes the failures it was told to.

    ``plan("SendMessageBatch", error(503, "ServiceUnavailable"), lost_answer)`` gives the next requests of the
    action these behaviours, one each; ``always(action, behaviour)`` all that have no plan. The action ``""``
    stands for every action without a rule of its own.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._lock = threading.Lock()
        self._plans: dict[str, deque[Behaviour]] = {}
        self._rules: dict[str, Behaviour] = {}
        self._requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        self._made = 0
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def plan(self, action: str, *behaviours: Behaviour) -> None:
        """Give the next requests of an action these behaviours, one each."""
        with self._lock:
            self._plans.setdefault(action, deque()).extend(behaviours)

    def always(self, action: str, behaviour: Behaviour) -> None:
        """Give all requests of an action this behaviour, from now on."""
        with self._lock:
            self._rules[action] = behaviour

    def clear(self) -> None:
        """Forget plans and rules: every request is forwarded."""
        with self._lock:
            self._plans.clear()
            self._rules.clear()

    def requests(self, action: str = "") -> list[Request]:
        """Return the requests so far, of one action or all of them, as they came."""
        with self._lock:
            return [request for request in self._requests if action in ("", request.action)]

    @property
    def counts(self) -> Counter[str]:
        """How many requests there were so far, by action."""
        return Counter(request.action for request in self.requests())

    @property
    def connections_made(self) -> int:
        """How many connections clients made so far."""
        return self._made

    def forget(self) -> None:
        """Count from zero again."""
        with self._lock:
            self._requests.clear()

    def cut(self) -> None:
        """Cut every connection that is open now, with the requests on it."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._server.shutdown()
        self._server.server_close()
        self.cut()
        self._thread.join()

    def handle(self, request: Request, forward: Forward) -> Reply | None:
        """Answer one request, by plan, by rule or by the server."""
        action = request.action
        with self._lock:
            self._requests.append(request)
            plan = self._plans.get(action) or self._plans.get("")
            rule = self._rules.get(action) or self._rules.get("") or forwarded
            behaviour = plan.popleft() if plan else rule
        return behaviour(request, forward)

    @contextlib.contextmanager
    def connected(self, connection: socket.socket) -> Iterator[http.client.HTTPConnection]:
        """Keep a client's connection in reach of ``cut``, and a connection to the server for it."""
        with self._lock:
            self._connections.add(connection)
            self._made += 1
        try:
            with contextlib.closing(http.client.HTTPConnection(self._upstream, timeout=60)) as upstream:
                yield upstream
        finally:
            with self._lock:
                self._connections.discard(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or the server that went away is what tests are about, not an error."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def handle(self) -> None:
        with self.server.proxy.connected(self.connection) as self.upstream:
            super().handle()

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        reply = self.server.proxy.handle(request, self._forward)
        if reply is None:
            self._cut()
            return
        # A server whose clock is not this machine's tells its own time.
        (self.send_response_only if "Date" in reply.headers else self.send_response)(reply.status)
        for key, value in reply.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self._write(reply)

    do_GET = do_POST = do_any

    def _write(self, reply: Reply) -> None:
        end = int(len(reply.body) * reply.sent)
        step = max(1, end // 10) if reply.seconds else max(1, end)
        for start in range(0, end, step):
            threading.Event().wait(reply.seconds * step / end)
            self.wfile.write(reply.body[start : min(start + step, end)])
            self.wfile.flush()
        if end < len(reply.body):
            self.wfile.flush()
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _forward(self, request: Request) -> Reply:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        self.upstream.request(request.method, request.path, request.body, headers)
        response = self.upstream.getresponse()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
        return Reply(response.status, kept, response.read())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test says what it expects."""


_HOP_BY_HOP = {"connection", "keep-alive", "content-length", "transfer-encoding", "date", "server"}
