"""Answers are read as HTTP/1.1 has them, however they arrive; connections are kept while they are good."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sqspipes.brokers.sqs.lean import http
from sqspipes.brokers.sqs.lean.http import Connection, connected
from sqspipes.brokers.sqs.lean.pool import MOST_IDLE, Pool
from sqspipes.brokers.sqs.lean.reply import BrokenAnswerError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Amzn-RequestId:  r \r\n\r\nhello"
BIG = bytes(range(256)) * 5_000


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours), theirs


@pytest.fixture
def tls_ends() -> Iterator[tuple[Connection, socket.socket]]:
    """The same over TLS."""
    folder = Path(__file__).with_name("certificates")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "server.pem")
    client.load_verify_locations(folder / "authority.pem")
    ours, theirs = socket.socketpair()
    accepted: list[socket.socket] = []
    accepting = threading.Thread(target=lambda: accepted.append(server.wrap_socket(theirs, server_side=True)))
    accepting.start()
    with client.wrap_socket(ours, server_hostname="localhost") as encrypted:
        accepting.join()
        with accepted[0]:
            yield Connection(encrypted), accepted[0]


Ends = tuple[Connection, socket.socket]


def told(ends: Ends, *pieces: bytes, close: bool = False) -> Connection:
    """Have the server say something, and perhaps close."""

    def say() -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                ends[1].sendall(piece)
            if close:
                ends[1].shutdown(socket.SHUT_WR)

    threading.Thread(target=say, daemon=True).start()
    return ends[0]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (WHOLE, 200, b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE, 200, b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE, 200, b"hello"),
        (b"HTTP/1.1 503\r\ncontent-length:0\r\n\r\n", 503, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200, b"hello"),
        (CHUNKED + b"3;a=b\r\nhel\r\n02\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n", 200, b"hello"),
        (CHUNKED + b"0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BIG), BIG), 200, BIG),
        (CHUNKED + b"%X\r\n%b\r\n0\r\n\r\n" % (len(BIG), BIG), 200, BIG),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000_000])
def test_answer_is_read_in_pieces_of_any_size(
    ends: Ends, answer: bytes, status: int, body: bytes, size: int
) -> None:
    size = max(size, len(answer) // 2_000)
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]
    connection = told(ends, *pieces)
    reply = connection.exchange(b"request", 10)
    assert (reply.status, reply.body) == (status, body)
    assert connection.reusable
    assert ends[1].recv(100) == b"request"


def test_names_of_headers_are_in_lower_case_and_values_trimmed(ends: Ends) -> None:
    assert told(ends, WHOLE).exchange(b"?", 10).headers == {"content-length": "5", "x-amzn-requestid": "r"}


def test_connection_carries_one_request_after_the_other(ends: Ends) -> None:
    for _ in range(3):
        assert told(ends, WHOLE).exchange(b"?", 10).body == b"hello"
    assert ends[0].reusable


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE.replace(b"X-Amzn-RequestId", b"Connection: Close\r\nX"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE + b"HTTP/1.1 408 Request Timeout\r\n",
    ],
)
def test_connection_that_is_not_kept_is_not_used_again(ends: Ends, answer: bytes) -> None:
    connection = told(ends, answer)
    assert connection.exchange(b"?", 10).body == b"hello"
    assert not connection.reusable


def test_old_server_may_say_that_it_keeps_the_connection(ends: Ends) -> None:
    answer = WHOLE.replace(b"1.1", b"1.0").replace(b"X-Amzn-RequestId", b"Connection: Keep-Alive\r\nX")
    connection = told(ends, answer)
    connection.exchange(b"?", 10)
    assert connection.reusable


def test_body_without_a_length_ends_with_the_connection(ends: Ends) -> None:
    connection = told(ends, b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", close=True)
    assert connection.exchange(b"?", 10).body == b"hello"
    assert not connection.reusable


@pytest.mark.parametrize(
    "answer",
    [
        *(b"SSH-2.0-OpenSSH_9.0\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 200_000),
        *(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", CHUNKED + b"x\r\n", CHUNKED + b"-1\r\n"),
        *(CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", CHUNKED + b"5\r\nhello!!0\r\n\r\n"),
        CHUNKED.replace(b"Chunked", b"gzip, chunked") + b"0\r\n\r\n",
    ],
)
def test_answer_that_is_not_http_breaks_the_connection(ends: Ends, answer: bytes) -> None:
    connection = told(ends, answer)
    with pytest.raises(BrokenAnswerError) as caught:
        connection.exchange(b"?", 10)
    assert caught.value.begun
    assert not connection.reusable


@pytest.mark.parametrize(
    "answer", [WHOLE[:3], WHOLE[:-1], WHOLE[:-7], CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n"]
)
def test_answer_that_ends_too_soon_breaks_the_connection(ends: Ends, answer: bytes) -> None:
    connection = told(ends, answer, close=True)
    with pytest.raises(BrokenAnswerError) as caught:
        connection.exchange(b"?", 10)
    assert caught.value.begun


def test_connection_closed_before_the_answer_says_so(ends: Ends) -> None:
    ends[1].close()
    with pytest.raises(BrokenAnswerError) as caught:
        ends[0].exchange(b"?", 10)
    assert not caught.value.begun


def test_request_may_be_refused_before_it_is_read(ends: Ends) -> None:
    ends[1].sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    ends[1].close()
    assert ends[0].exchange(b"?", 10).status == 413
    assert not ends[0].reusable


@pytest.mark.parametrize("answer", [b"", WHOLE[:20], WHOLE[:-1], CHUNKED])
def test_silence_is_a_timeout(ends: Ends, answer: bytes) -> None:
    with pytest.raises(TimeoutError):
        told(ends, answer).exchange(b"?", 0.1)


def test_silence_over_tls_is_a_timeout(tls_ends: Ends) -> None:
    assert told(tls_ends, WHOLE).exchange(b"?", 10).body == b"hello"
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        told(tls_ends, WHOLE[:-1]).exchange(b"?", 0.5)
    assert 0.4 < time.monotonic() - began < 5


@pytest.mark.parametrize("kind", ["ends", "tls_ends"])
def test_request_that_nobody_reads_is_a_timeout(request: pytest.FixtureRequest, kind: str) -> None:
    connection, _ = request.getfixturevalue(kind)
    with pytest.raises(TimeoutError):
        connection.exchange(bytes(50_000_000), 0.2)


def test_answer_that_trickles_for_too_long_is_a_timeout(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LONGEST_ANSWER", 0.0)

    def trickle() -> None:
        with contextlib.suppress(OSError):
            for byte in WHOLE:
                ends[1].sendall(bytes([byte]))
                threading.Event().wait(0.05)

    threading.Thread(target=trickle, daemon=True).start()
    with pytest.raises(TimeoutError):
        ends[0].exchange(b"?", 0.5)


def test_each_request_has_a_timeout_of_its_own(ends: Ends) -> None:
    told(ends, WHOLE).exchange(b"?", 0.2)
    threading.Timer(0.6, ends[1].sendall, [WHOLE]).start()
    assert ends[0].exchange(b"?", 10).body == b"hello"


def test_idle_connection_that_was_closed_is_noticed(ends: Ends) -> None:
    assert not ends[0].dropped
    ends[1].close()
    assert ends[0].dropped


def test_connection_has_no_delay_and_is_kept_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = connected(urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}"), None, 5)
        assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()
        connection.close()


class Kept:
    """A pool with a clock of the test's, and connections to put into it."""

    def __init__(self, most: int, stack: contextlib.ExitStack) -> None:
        self.now = 0.0
        self.pool = Pool(most, lambda: self.now)
        self._stack = stack

    def connection(self) -> tuple[Connection, socket.socket]:
        """Return a connection that has answered, and the server's end of it."""
        ours, theirs = map(self._stack.enter_context, socket.socketpair())
        connection = Connection(ours)
        theirs.sendall(WHOLE)
        connection.exchange(b"?", 10)
        return connection, theirs


@pytest.fixture
def kept() -> Iterator[Kept]:
    """A pool of two."""
    with contextlib.ExitStack() as stack:
        yield Kept(2, stack)


def closed(connection: Connection) -> bool:
    return connection.sock.fileno() < 0


def test_newest_connection_is_taken_first(kept: Kept) -> None:
    first, second = kept.connection()[0], kept.connection()[0]
    kept.pool.give(first)
    kept.pool.give(second)
    assert [kept.pool.take(), kept.pool.take(), kept.pool.take()] == [second, first, None]


def test_pool_keeps_no_more_than_it_may(kept: Kept) -> None:
    connections = [kept.connection()[0] for _ in range(3)]
    for connection in connections:
        kept.pool.give(connection)
    assert [closed(connection) for connection in connections] == [False, False, True]


def test_connection_that_may_not_be_used_again_is_closed(kept: Kept) -> None:
    connection, _ = kept.connection()
    connection.reusable = False
    kept.pool.give(connection)
    assert closed(connection)
    assert kept.pool.take() is None


def test_connection_that_was_idle_for_long_is_closed(kept: Kept) -> None:
    old, new = kept.connection()[0], kept.connection()[0]
    kept.pool.give(old)
    kept.now = MOST_IDLE + 1
    kept.pool.give(new)
    assert closed(old)
    kept.now *= 2
    assert kept.pool.take() is None
    assert closed(new)


def test_connection_that_the_server_closed_is_not_taken(kept: Kept) -> None:
    good, bad = kept.connection(), kept.connection()
    kept.pool.give(good[0])
    kept.pool.give(bad[0])
    bad[1].close()
    kept.now = 5.0
    assert kept.pool.take() is good[0]


def test_closed_pool_keeps_nothing(kept: Kept) -> None:
    idle, used = kept.connection()[0], kept.connection()[0]
    kept.pool.give(idle)
    kept.pool.close()
    kept.pool.give(used)
    assert closed(idle)
    assert closed(used)
