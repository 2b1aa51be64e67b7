"""What no later try can mend is told at once and by its name; what may pass is waited for, and told of once."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sqspipes import TaskClient
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import QueueSpec
from sqspipes.errors import (
    BrokerError,
    BrokerUnavailableError,
    CredentialsError,
    OptionError,
    QueueMissingError,
)
from sqspipes.testing.broker_contract.steps import put, take
from tests.acceptance.support import eventually
from tests.servers import free_port
from tests.valkey import Valkey

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path(__file__).with_name("certificates")
TRANSPORTS = ("lean", "boto3")
AWS = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}

Serve = Callable[..., int]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(answer)`` starts a server that answers all that it is sent with the same bytes."""
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as stack:

        def talk(plain: socket.socket, answer: Callable[[bytes], bytes], tls: ssl.SSLContext | None) -> None:
            with contextlib.suppress(OSError), plain, _spoken(plain, tls) as connection:
                while asked := connection.recv(65_536):
                    connection.sendall(answer(asked))

        def start(answer: bytes | Callable[[bytes], bytes] = b"", tls: ssl.SSLContext | None = None) -> int:
            answers = answer if callable(answer) else lambda _: answer
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(listener.shutdown, socket.SHUT_RDWR)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        threading.Thread(target=talk, args=(connection, answers, tls), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            return int(listener.getsockname()[1])

        yield start


def _spoken(plain: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    return tls.wrap_socket(plain, server_side=True) if tls else plain


def of_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    return context


def for_good(call: Callable[[], Any], match: str) -> None:
    """Demand that a call fails for good, with an error that names why."""
    with pytest.raises(BrokerError, match=match) as caught:
        call()
    assert not isinstance(caught.value, BrokerUnavailableError | CredentialsError)


# SQS


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("file", "why"), [("none.pem", "No such file"), ("bad.pem", "certificate"), ("", "directory")]
)
def test_bundle_that_cannot_be_used_is_named(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    name: str,
    file: str,
    why: str,
) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    monkeypatch.setenv(name, str(tmp_path / file))
    broker = open_broker("sqs://", endpoint_url=f"https://localhost:{serve()}", transport=transport, **AWS)
    for_good(
        lambda: broker.names("x"),
        rf"CA bundle '{re.escape(str(tmp_path / file))}' cannot be used: .*{why}.*AWS_CA_BUNDLE",
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_endpoint_of_another_protocol_is_named(serve: Serve, transport: str) -> None:
    plain, tls = serve(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), serve(tls=of_server())
    said = (
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 50\r\n\r\nThe plain HTTP request was sent to HTTPS port"
    )
    said += b" " * 5

    def names(url: str) -> Any:
        with contextlib.closing(
            open_broker("sqs://", endpoint_url=url, transport=transport, **AWS)
        ) as broker:
            return broker.names("x")

    for_good(lambda: names(f"https://127.0.0.1:{plain}"), "speaks no TLS: is its endpoint http://")
    for_good(lambda: names(f"http://127.0.0.1:{serve(said)}"), "wants TLS: is its endpoint https://")
    for_good(lambda: names(f"https://localhost:{tls}"), "certificate is not trusted, see AWS_CA_BUNDLE")


# Redis


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("ssl_ca_certs={}/none.pem", "ssl_ca_certs '.*none.pem' cannot be used: No such file"),
        ("ssl_ca_certs={}/bad.pem", "ssl_ca_certs '.*bad.pem' cannot be used"),
        ("ssl_ca_certs={}", "ssl_ca_certs '.*' cannot be used: Is a directory"),
        ("ssl_certfile={}/none.pem", "ssl_certfile '.*none.pem' cannot be used: No such file"),
        (
            "ssl_certfile={0}/bad.pem&ssl_keyfile={0}/bad.pem",
            "ssl_certfile '.*', ssl_keyfile '.*' cannot be used",
        ),
    ],
)
def test_file_for_tls_that_cannot_be_used_is_named(
    serve: Serve, tmp_path: Path, query: str, match: str
) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    url = f"rediss://localhost:{serve()}?{query.format(tmp_path)}"
    for_good(lambda: open_broker(url).names("x"), match)


def test_key_needs_its_certificate() -> None:
    with pytest.raises(OptionError, match="ssl_keyfile is given without ssl_certfile"):
        open_broker("rediss://localhost?ssl_keyfile=/etc/key.pem")


def info(asked: bytes, *lines: str, then: bytes = b"*0\r\n") -> bytes:
    """Answer INFO with lines, and all else with the same."""
    if b"INFO" not in asked:
        return b"+OK\r\n" * asked.count(b"CLIENT") if b"CLIENT" in asked else then
    text = "\r\n".join(("redis_version:7.2.4", *lines, "")).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"-MOVED 866 10.0.0.1:6379\r\n", "node of Redis Cluster, which is not supported"),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", "node of Redis Cluster"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "node of Redis Cluster"),
        (b"-ERR unknown command 'HKEYS', with args beginning with:\r\n", "Redis 6.2 or newer.*no Sentinel"),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "another program's"),
    ],
)
def test_server_of_another_kind_is_named(serve: Serve, answer: bytes, match: str) -> None:
    broker = open_broker(f"redis://127.0.0.1:{serve(lambda asked: info(asked, then=answer))}")
    for_good(lambda: broker.names("x"), match)


def test_sentinel_is_named(serve: Serve) -> None:
    port = serve(lambda asked: info(asked, "redis_mode:sentinel"))
    for_good(lambda: open_broker(f"redis://127.0.0.1:{port}").names("x"), "is a Sentinel, .* the primary")


def test_server_of_another_protocol_is_named(serve: Serve) -> None:
    http = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    for_good(lambda: open_broker(f"redis://127.0.0.1:{http}").names("x"), "is no Redis")
    for_good(
        lambda: open_broker(f"rediss://127.0.0.1:{http}").names("x"), "speaks no TLS: then it is redis://"
    )
    url = f"redis://127.0.0.1:{serve(tls=of_server())}"
    with pytest.raises(
        BrokerUnavailableError, match="wants TLS closes such connections: then it is rediss://"
    ):
        open_broker(url).names("x")


def test_certificate_that_fails_later_is_an_outage(serve: Serve, tmp_path: Path) -> None:
    context = of_server()
    port = serve(lambda asked: info(asked), tls=context)
    (tmp_path / "ca.pem").write_bytes((CERTIFICATES / "authority.pem").read_bytes())
    broker = open_broker(f"rediss://localhost:{port}?ssl_ca_certs={tmp_path}/ca.pem")
    assert broker.names("x") == []
    (tmp_path / "ca.pem").write_bytes((CERTIFICATES / "other.pem").read_bytes())
    broker.interrupt()
    connections: Any = vars(broker)["_connections"]
    connections._drop_idle()
    with pytest.raises(BrokerUnavailableError, match="certificate is not trusted"):
        broker.names("x")


@pytest.fixture
def own() -> Iterator[Valkey]:
    with contextlib.closing(Valkey()) as server:
        yield server


@contextlib.contextmanager
def past_the_broker(server: Valkey) -> Iterator[Any]:
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        yield client


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_server_that_drops_keys_is_warned_of(
    own: Valkey, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    caplog.set_level(logging.WARNING, "sqspipes")
    with past_the_broker(own) as direct:
        direct.config_set("maxmemory-policy", policy)
    with contextlib.closing(open_broker(own.url)) as broker:
        for _ in range(2):
            broker.names("x")
        assert [f"its maxmemory-policy is {policy}" in each.getMessage() for each in caplog.records] == [True]
        with pytest.raises(QueueMissingError, match=f"dropped it: its maxmemory-policy is {policy}"):
            broker.depth("q.fifo")
    with past_the_broker(own) as direct:
        direct.config_set("maxmemory-policy", "noeviction")
    with (
        contextlib.closing(open_broker(own.url)) as broker,
        pytest.raises(QueueMissingError, match="create_queues"),
    ):
        broker.depth("q.fifo")
    assert len(caplog.records) == 1


def test_keys_that_are_gone_are_named(own: Valkey) -> None:
    seen = []
    with contextlib.closing(open_broker(own.url)) as broker, past_the_broker(own) as direct:

        def fill() -> dict[bytes, bytes]:
            """Return the keys by their last parts: a queue's number, in the middle, is another one each time."""
            direct.flushall()
            broker.declare([QueueSpec("q.fifo")])
            put(broker, "q.fifo", "a", "b", group="g")
            return {key.rpartition(b":")[2]: key for key in direct.keys("*")}

        for part in list(fill()):
            direct.delete(fill()[part])
            try:
                take(broker, "q.fifo")
            except BrokerError as error:
                seen.append(str(error))
    assert seen
    gone = r"does not exist|keys of messages are gone.*maxmemory-policy has to be noeviction"
    assert [each for each in seen if not re.search(gone, each)] == []
    assert any("keys of messages are gone" in each for each in seen)


def test_failover_is_one_outage_in_the_log(
    own: Valkey, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqspipes")
    done: list[int] = []
    tasks = [{"method": lambda value: value, "name": "first"}, {"method": done.append, "name": "last"}]
    with TaskClient(domain, broker=own.url).register_tasks(tasks) as client, client.start() as run:
        with past_the_broker(own) as direct:
            client.put(1)
            eventually(lambda: done == [1], 30, "the first one is through")
            direct.replicaof("127.0.0.1", str(free_port()))
            eventually(lambda: "does not answer" in caplog.text, 30, "the outage is told of")
            threading.Event().wait(2)  # for as long as a pipe that flaps would tell of several
            direct.replicaof("NO", "ONE")
        eventually(lambda: "answers again" in caplog.text, 60, "its end is told of")
        client.put(2)
        eventually(lambda: run.over or done == [1, 2], 30, "the second one is through")
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert [("does not answer" in each, "answers again" in each) for each in told] == [
        (True, False),
        (False, True),
    ]


def test_replica_is_left_for_where_its_name_leads(serve: Serve) -> None:
    answers = iter([b"-READONLY You can't write against a read only replica.\r\n", b":0\r\n", b"*0\r\n"])
    connections = []

    def answer(asked: bytes) -> bytes:
        if b"INFO" in asked:
            connections.append(asked)
            return info(asked)
        return next(answers)

    port = serve(answer)
    with contextlib.closing(open_broker(f"redis://127.0.0.1:{port}")) as broker:
        with pytest.raises(BrokerUnavailableError):
            broker.names("x")
        before = len(connections)
        assert broker.names("x") == []
    assert len(connections) > before


# Every broker

_OPEN_FILES = """
import os, resource, sys
from sqspipes.brokers import open_broker
from sqspipes.errors import BrokerUnavailableError
arguments = dict(aws_key="x", aws_secret="x", aws_region="us-west-2") if sys.argv[1] == "sqs://" else {}
broker = open_broker(sys.argv[1], endpoint_url="http://127.0.0.1:9", transport=sys.argv[2], **arguments)
try:
    broker.names("x")
except BrokerUnavailableError:
    pass
broker.close()
if sys.argv[3] == "new":
    os.remove("p.db")
broker = open_broker(sys.argv[1], endpoint_url="http://127.0.0.1:9", transport=sys.argv[2], **arguments)
if sys.argv[1] == "sqs://":
    try:
        broker.names("x")
    except BrokerUnavailableError:
        pass
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True:
        kept.append(open("/dev/null"))
except OSError:
    pass
for _ in range(int(sys.argv[4])):
    kept.pop()
try:
    broker.names("x")
except BrokerUnavailableError as error:
    kept.clear()
    print(error)
    if sys.argv[1].startswith("sqlite:"):
        print("then", broker.names("x"))
"""


def short_of_files(folder: Path, *arguments: str) -> str:
    """Return what a program prints that may open a few more files only."""
    command = [sys.executable, "-c", _OPEN_FILES, *arguments]
    ended = subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    ("url", "transport"),
    [
        ("redis://127.0.0.1:9", "lean"),
        *[("sqs://", each) for each in TRANSPORTS],
    ],
)
def test_too_many_open_files_are_named(tmp_path: Path, url: str, transport: str) -> None:
    assert "too many open files" in short_of_files(tmp_path, url, transport, "old", "0")


@pytest.mark.parametrize("file", ["new", "old"])
@pytest.mark.parametrize("left", [0, 2, 4])
def test_too_many_open_files_are_an_outage_of_a_database(tmp_path: Path, file: str, left: int) -> None:
    # It needs five: two locks, the file, its log and the log's index.
    said = short_of_files(tmp_path, "sqlite:///p.db", "lean", file, str(left))
    assert "this process has too many open files (ulimit -n)" in said
    assert "then []" in said
