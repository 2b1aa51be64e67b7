"""HTTP over sockets that never block: pieces of any size, TLS, stale connections, times, and cuts."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sqspipes.brokers.sqs.lean import nonblocking
from sqspipes.brokers.sqs.lean.nonblocking import ConnectError, HttpClient, HttpExchange
from sqspipes.brokers.sqs.lean.pool import MOST_IDLE
from sqspipes.brokers.sqs.lean.reply import BrokenAnswerError, Reply
from sqspipes.engine.loop import EngineLoop
from sqspipes.support import clocks
from sqspipes.support.workers import Workers
from tests.scripted import Scripted, Step, answer, cut, reply

PATIENCE = 10.0
CERTIFICATES = Path(__file__).with_name("certificates")


class Clock:
    """The monotonic clock, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return clocks.monotonic() + self.ahead


class Asking:
    """A client of a scripted server, on a loop."""

    def __init__(
        self, port: int, *, tls: bool, host: str = "localhost", authority: str = "authority"
    ) -> None:
        self.clock = Clock()
        self.loop = EngineLoop(clock=self.clock)
        self.lookups = Workers(1, "test lookup")
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(CERTIFICATES / f"{authority}.pem")
        server = urlsplit(f"{'https' if tls else 'http'}://{host}:{port}")
        self.http = HttpClient(server, context, self.loop, self.lookups, connect_timeout=5.0, most_idle=2)

    def begin(self, body: bytes = b"", timeout: float = PATIENCE) -> tuple[HttpExchange, list[Any]]:
        """Send a request; return the exchange, and where its answer will be."""
        came: list[Any] = []
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return self.http.exchange(head + body, timeout, came.append), came

    def wait(self, until: Callable[[], Any]) -> None:
        """Run turns until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            self.loop.turn(0.05)
            assert self.loop.errors == []
            assert time.monotonic() < deadline

    def result(self, body: bytes = b"", timeout: float = PATIENCE) -> Any:
        """Send a request and return its reply, or the error."""
        _, came = self.begin(body, timeout)
        self.wait(lambda: came)
        return came[0]

    def close(self) -> None:
        """Close everything."""
        self.http.close()
        self.lookups.shutdown()
        self.loop.close()


Begin = Callable[..., tuple[Asking, Scripted]]


@pytest.fixture(params=["plain", "tls"])
def begin(request: pytest.FixtureRequest) -> Iterator[Begin]:
    """``begin(script, script)`` starts a server and a client of it."""
    with contextlib.ExitStack() as stack:

        def begin(*scripts: Sequence[Step]) -> tuple[Asking, Scripted]:
            context = None
            if request.param == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATES / "server.pem")
            server = Scripted(*scripts, tls=context)
            asking = Asking(server.port, tls=request.param == "tls")
            stack.callback(server.close)
            stack.callback(asking.close)
            return asking, server

        yield begin


def one_by_one(whole: bytes) -> list[bytes]:
    return [whole[at : at + 1] for at in range(len(whole))]


BIG = bytes(range(256)) * 8_000
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([WHOLE], b"hello"),
        (one_by_one(WHOLE), b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE], b"hello"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"lo\r\n0\r\n\r\n"], b"hello"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BIG), BIG], BIG),
    ],
    ids=["whole", "bytes", "continue", "chunks", "big"],
)
def test_answer_is_read_in_whatever_pieces_it_comes(begin: Begin, pieces: list[bytes], body: bytes) -> None:
    asking, server = begin([answer(*pieces), reply(b"again")])
    found = asking.result()
    assert isinstance(found, Reply)
    assert (found.status, found.body) == (200, body)
    assert asking.result().body == b"again"
    assert server.connections == 1


def test_large_request_is_sent_whole(begin: Begin) -> None:
    asking, server = begin([reply()])
    asking.result(BIG)
    assert server.requests[0].endswith(BIG)


def test_requests_at_once_have_a_connection_each_and_idle_ones_are_bounded(begin: Begin) -> None:
    together = threading.Barrier(3)

    def meet(connection: socket.socket) -> None:
        together.wait(PATIENCE)
        reply()(connection)

    asking, server = begin([meet, reply()], [meet, reply()], [meet, reply()])
    came = [asking.begin()[1] for _ in range(3)]
    asking.wait(lambda: all(came))
    assert server.connections == 3
    assert len(asking.http._idle) == 2
    assert server.ended.acquire(timeout=PATIENCE)  # the third one is closed


@pytest.mark.parametrize("late", [False, True], ids=["at once", "while a request is on its way"])
def test_idle_connection_that_the_server_closed_is_replaced(begin: Begin, late: bool) -> None:
    asking, server = begin([reply(b"one"), cut] if late else [reply(b"one")], [reply(b"two")])
    assert asking.result().body == b"one"
    if not late:
        assert server.ended.acquire(timeout=PATIENCE)
    assert asking.result().body == b"two"
    assert server.connections == 2


def test_connection_with_bytes_that_nobody_asked_for_is_not_used(begin: Begin) -> None:
    sent, answered = threading.Event(), threading.Event()

    def more(connection: socket.socket) -> None:
        reply(b"one")(connection)
        assert answered.wait(PATIENCE)
        connection.sendall(WHOLE)
        sent.set()

    asking, _ = begin([more], [reply(b"two")])
    assert asking.result().body == b"one"
    asking.loop.turn(0.0)  # in the turn of its answer a connection is not looked at
    answered.set()
    assert sent.wait(PATIENCE)  # after the loop has looked at its sockets
    assert asking.result().body == b"two"


def test_old_idle_connection_is_not_used(begin: Begin) -> None:
    asking, server = begin([reply()], [reply()])
    asking.result()
    asking.clock.ahead += MOST_IDLE + 1
    asking.result()
    assert server.connections == 2


def test_connection_that_breaks_in_an_answer_is_an_error(begin: Begin) -> None:
    asking, _ = begin([answer(WHOLE[:-2])])
    error = asking.result()
    assert isinstance(error, BrokenAnswerError)
    assert error.begun


def test_new_connection_that_breaks_at_once_is_an_error_and_no_second_try(begin: Begin) -> None:
    asking, server = begin([cut], [reply()])
    error = asking.result()
    assert isinstance(error, BrokenAnswerError)
    assert not error.begun
    assert server.connections == 1


def test_what_is_not_http_is_an_error(begin: Begin) -> None:
    asking, _ = begin([answer(b"SSH-2.0-OpenSSH\r\n\r\n")])
    assert isinstance(asking.result(), BrokenAnswerError)


@pytest.mark.parametrize("begun", [False, True], ids=["nothing came", "half came"])
def test_answer_that_does_not_come_in_time_is_an_error(begin: Begin, begun: bool) -> None:
    over = threading.Event()

    def silent(connection: socket.socket) -> None:
        connection.sendall(WHOLE[:-2] if begun else b"")
        over.wait(PATIENCE)

    asking, _ = begin([silent])
    _, came = asking.begin()
    if begun:
        asking.wait(lambda: any(one._begun for one in asking.http._open))
    else:
        asking.wait(lambda: any(one.exchange is not None and not one._out for one in asking.http._open))
    asking.clock.ahead += 60.0
    asking.wait(lambda: came)
    over.set()
    assert isinstance(came[0], TimeoutError)


def test_exchange_that_is_cut_is_a_broken_answer_and_its_connection_is_closed(begin: Begin) -> None:
    inside = threading.Event()

    def silent(connection: socket.socket) -> None:
        inside.set()
        with contextlib.suppress(OSError):
            connection.recv(1)

    asking, server = begin([silent])
    exchange, came = asking.begin()
    asking.wait(inside.is_set)
    exchange.cut()
    assert isinstance(came[0], BrokenAnswerError)
    assert came[0].begun
    assert server.ended.acquire(timeout=PATIENCE)


def test_exchange_that_is_cut_before_it_is_connected_sends_nothing(begin: Begin) -> None:
    asking, server = begin([reply()])
    exchange, came = asking.begin()
    exchange.cut()
    asking.wait(lambda: came)
    assert isinstance(came[0], BrokenAnswerError)
    assert server.requests == []


def test_server_that_refuses_a_request_before_it_has_read_it_is_heard() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1_000)
            connection.sendall(refused)
            while connection.recv(1_000_000):
                pass

    threading.Thread(target=refuse, daemon=True).start()
    plain = Asking(listener.getsockname()[1], tls=False, host="127.0.0.1")
    try:
        assert plain.result(BIG).status == 413
    finally:
        plain.close()
        listener.close()


def test_close_ends_what_is_under_way() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    asking = Asking(listener.getsockname()[1], tls=False, host="127.0.0.1")
    _, came = asking.begin()
    listener.settimeout(PATIENCE)
    asking.loop.turn(0)
    connection, _ = listener.accept()
    with listener, connection:
        connection.settimeout(PATIENCE)
        asking.wait(lambda: asking.http._open and next(iter(asking.http._open))._carry_on.__name__ == "_read")
        _, later = asking.begin()
        asking.http.close()
        asking.lookups.shutdown()
        while connection.recv(1_000):
            pass  # until the end of the connection
    asking.wait(lambda: came and later)
    asking.loop.close()
    assert [type(error) for error in came + later] == [BrokenAnswerError] * 2
    assert not asking.http._open


# Connecting


def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Scripted([reply(b"here")])
    nobody = socket.create_server(("127.0.0.1", 0))
    closed = nobody.getsockname()[1]
    nobody.close()
    asking = Asking(server.port, tls=False, host="127.0.0.1")
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (closed, server.port)
    ]
    monkeypatch.setattr(asking.http, "_addresses", lambda: found)
    try:
        assert asking.result().body == b"here"
    finally:
        asking.close()
        server.close()


def test_server_that_is_not_there_is_named() -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    port = nobody.getsockname()[1]
    nobody.close()
    asking = Asking(port, tls=False, host="127.0.0.1")
    error = asking.result()
    asking.close()
    assert isinstance(error, ConnectError)
    assert isinstance(error.__cause__, OSError)


def test_name_that_cannot_be_looked_up_is_an_error_and_holds_up_no_turn() -> None:
    asking = Asking(1, tls=False, host="no.such.host.invalid")
    error = asking.result()
    asking.close()
    assert isinstance(error, ConnectError)


@pytest.mark.parametrize("ends", ["cut", "late"])
def test_lookup_that_hangs_holds_up_neither_a_cut_nor_the_time(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def hang() -> list[Any]:
        assert go_on.wait(PATIENCE)
        raise OSError("no such name")

    asking = Asking(1, tls=False)
    monkeypatch.setattr(asking.http, "_addresses", hang)
    exchange, came = asking.begin()
    if ends == "cut":
        exchange.cut()
        assert isinstance(came[0], BrokenAnswerError)
    else:
        asking.clock.ahead += 6.0
        asking.wait(lambda: came)
        assert isinstance(came[0], ConnectError)
    go_on.set()
    asking.lookups.shutdown()
    asking.loop.turn(0)
    assert len(came) == 1
    asking.close()


@pytest.mark.parametrize(("host", "authority"), [("localhost", "other"), ("127.0.0.1", "authority")])
def test_server_that_is_another_one_gets_no_request(host: str, authority: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    server = Scripted([reply()], tls=context)
    asking = Asking(server.port, tls=True, host=host, authority=authority)
    error = asking.result()
    asking.close()
    server.close()
    assert isinstance(error, ConnectError)
    assert isinstance(error.__cause__, ssl.SSLError)
    assert server.requests == []


def test_handshake_that_does_not_end_is_given_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    asking = Asking(listener.getsockname()[1], tls=True)
    _, came = asking.begin()
    asking.wait(lambda: any(one._carry_on == one._shaking for one in asking.http._open))
    for _ in range(3):  # each address gets its time
        asking.clock.ahead += nonblocking._SWEEP_SECONDS + 5.0
        asking.loop.turn(0.05)
    asking.wait(lambda: came)
    asking.close()
    listener.close()
    assert isinstance(came[0], ConnectError)
