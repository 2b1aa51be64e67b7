"""What is not HTTP to the letter, has no end or takes too long breaks a connection; h11 says what the letter is."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util.wait import wait_for_read

from sqspipes.brokers.sqs.lean import http, reply
from sqspipes.brokers.sqs.lean.http import Connection
from sqspipes.brokers.sqs.lean.pool import Pool
from sqspipes.brokers.sqs.lean.reply import BrokenAnswerError, Reply

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answered(answer: bytes) -> tuple[Reply | None, bool]:
    """Return what a connection makes of an answer after which the server closes, and whether it is kept."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        connection = Connection(ours)
        try:
            return connection.exchange(b"?", 5), connection.reusable
        except BrokenAnswerError:
            return None, False


def by_h11(answer: bytes) -> tuple[int, dict[str, str], bytes, bool] | None:
    """Return status, headers, body, and whether another request may follow, as h11 reads an answer."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    response, body, fed = None, b"", [b"", answer]
    try:
        while True:
            event: Any = client.next_event()
            if event is h11.NEED_DATA:
                client.receive_data(fed.pop())
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                kept = client.their_state is h11.DONE and not client.trailing_data[0]
                break
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None
    assert response is not None
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return response.status_code, headers, body, kept


REFUSED = {
    "two lengths": WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"),
    "the same length twice": WHOLE.replace(b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\n"),
    "two lengths in one": WHOLE.replace(b": 2", b": 2, 2"),
    **{
        f"length {length!r}": WHOLE.replace(b": 2", b": " + length)
        for length in (b"+2", b"-2", b"0x2", b"2_0", b"", b"2.0", b"\xb2", b"2 2", b"9" * 5_000, b"9" * 15)
    },
    **{
        f"chunk {size!r}": CHUNKED + size + b"\r\nok\r\n0\r\n\r\n"
        for size in (
            b"0x2",
            b"+2",
            b"-2",
            b"2_",
            b" 2",
            b"",
            b"g",
            b"2 ;a",
            b"2;\x00",
            b"0" * 16 + b"2",
            b"2,2",
        )
    },
    "length and chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n")
    + b"2\r\nok\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"2\r\nok\r\n0\r\n\r\n",
    "chunked twice": CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"0\r\n\r\n",
    "chunks of chunks": CHUNKED.replace(b"chunked", b"chunked, chunked") + b"0\r\n\r\n",
    "other coding": CHUNKED.replace(b"chunked", b"identity") + b"0\r\n\r\n",
    "trailer that is none": CHUNKED + b"0\r\nno colon\r\n\r\n",
    "trailer that is folded": CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n",
    "trailers without end": CHUNKED + b"0\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
    "long extension": CHUNKED + b"2;" + b"a" * 20_000 + b"\r\nok\r\n0\r\n\r\n",
    "folded header": WHOLE.replace(b"\r\n\r\n", b"\r\nA: b\r\n c: d\r\n\r\n"),
    "folded with a tab": WHOLE.replace(b"\r\n\r\n", b"\r\nA: b\r\n\tc\r\n\r\n"),
    "folded at the start": WHOLE.replace(b"OK\r\n", b"OK\r\n A: b\r\n"),
    "space before the colon": WHOLE.replace(b"Length:", b"Length :"),
    "no name": WHOLE.replace(b"\r\n\r\n", b"\r\n: b\r\n\r\n"),
    "name with a space": WHOLE.replace(b"\r\n\r\n", b"\r\na b: c\r\n\r\n"),
    "name that is not ASCII": WHOLE.replace(b"\r\n\r\n", b"\r\n\xe9: c\r\n\r\n"),
    **{
        f"{character!r} in a header": WHOLE.replace(b"\r\n\r\n", b"\r\nA: b" + character + b"c\r\n\r\n")
        for character in (b"\x00", b"\r", b"\n", b"\x1b", b"\x0b", b"\x7f")
    },
    "bare line end": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
    "long head": WHOLE.replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 20_000 + b"\r\n\r\n"),
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + WHOLE,
    **{
        f"status {status!r}": WHOLE.replace(b"HTTP/1.1 200 OK", status)
        for status in (
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 000 x",
            b"HTTP/2.0 200 OK",
            b"HTTP/1.2 200 OK",
            b"http/1.1 200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 200 \x00",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 \xb2\xb2\xb2 OK",
            b"ICY 200 OK",
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_http_to_the_letter_is_refused(case: str) -> None:
    assert answered(REFUSED[case]) == (None, False)


@pytest.mark.parametrize(
    ("answer", "body", "kept"),
    [
        (WHOLE, b"ok", True),
        (WHOLE.replace(b"200 OK", b"200"), b"ok", True),
        (WHOLE.replace(b"200 OK", b"200 "), b"ok", True),
        (WHOLE.replace(b": 2", b":\t 2 \t"), b"ok", True),
        (WHOLE.replace(b": 2", b": 002"), b"ok", True),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nA:\r\nA: \xe9\r\n\r\n"), b"ok", True),
        (WHOLE + b"x", b"ok", False),
        (
            WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"),
            b"ok",
            False,
        ),
        (CHUNKED + b'002;a="b" \t\r\nok\r\n00\r\nA: b\r\n\r\n', b"ok", True),
    ],
)
def test_what_is_http_is_read_as_h11_does(answer: bytes, body: bytes, kept: bool) -> None:
    reply, reusable = answered(answer)
    assert reply is not None
    assert (reply.body, reusable) == (body, kept)
    assert by_h11(answer) == (reply.status, reply.headers, body, kept)


PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"0",
        b"2",
        b"0x",
        b"+",
        b"\x00",
        b"\x0b",
        b"\xb2",
        b"a",
        b"ok",
        b"\r\n ",
        b"Content-Length: 2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"close, ",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ]
)
GOOD = st.sampled_from(
    [
        WHOLE,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"1;a\r\no\r\n01\r\nk\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
    ]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer in which some pieces were put, replaced or left out."""
    answer = draw(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(answer)))
        answer = answer[:at] + draw(PIECES | st.just(b"")) + answer[at + draw(st.integers(0, 3)) :]
    return answer


@given(answers())
def test_whatever_is_taken_h11_takes_for_the_same(answer: bytes) -> None:
    reply, reusable = answered(answer)
    if reply is None:
        return
    theirs = by_h11(answer)
    assert theirs is not None
    status, headers, body, kept = theirs
    assert (reply.status, reply.headers, reply.body) == (status, headers, body)
    assert kept or not reusable or answer.startswith(b"HTTP/1.0")


@given(answers())
def test_answer_in_one_piece_is_read_as_piece_by_piece(answer: bytes) -> None:
    at_once = reply.at_once(answer)
    if at_once is not None:
        reader = reply.reading()
        next(reader)
        with pytest.raises(StopIteration) as end:
            reader.send(answer)
        assert end.value.value == at_once


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 2\r\nContent-Length: 2",
        b"Content-Length: 2\r\nA: 1\r\nA: 2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Content-Length: 2\r\n folded",
        b"Content-Length: 3",
        b"Content-Length: 1",
        b"Content-Length: +2",
        b"A: 1",
    ],
)
def test_answers_that_are_not_the_usual_are_left_to_the_reader_of_pieces(lines: bytes) -> None:
    assert reply.at_once(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\nok") is None


def test_answers_of_sqs_are_read_at_once() -> None:
    assert reply.at_once(WHOLE) == reply.Answered(Reply(200, {"content-length": "2"}, b"ok"), keeps=True)


# What has no end


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        CHUNKED + b"3E9\r\n",
        CHUNKED + b"3E8\r\n" + bytes(1_000) + b"\r\n1\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1_001),
    ],
)
def test_answer_that_is_longer_than_any_of_sqs_is_refused(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply, "_LONGEST_BODY", 1_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        with pytest.raises(BrokenAnswerError, match="longer than 1,000 bytes"):
            Connection(ours).exchange(b"?", 5)


def test_largest_answer_of_sqs_is_read() -> None:
    # Ten messages of the largest size, each of their characters written as JSON may write it.
    body = b"\\u0041" * (10 * 1_048_576 + 10_000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        say = threading.Thread(
            target=theirs.sendall,
            args=[b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)],
        )
        say.start()
        assert len(Connection(ours).exchange(b"?", 30).body) == len(body)
        say.join()


# What takes too long


class Cooperative(socket.socket):
    """A socket like those of gevent and eventlet: it never waits in the kernel, so it has only Python's timeouts."""

    def recv(self, *args: Any) -> bytes:
        return super().recv(*args)


class Restless(socket.socket):
    """A socket whose descriptor does not block, whatever its timeout."""

    def settimeout(self, value: float | None) -> None:
        super().settimeout(value)
        if value is None:
            self.setblocking(False)


class Deaf(socket.socket):
    """A socket whose kernel knows no timeouts."""

    def setsockopt(self, *args: Any) -> None:
        if args[1] in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            raise OSError("Protocol not available")
        super().setsockopt(*args)


def encrypted(ours: socket.socket, theirs: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return both ends over TLS."""
    folder = Path(__file__).with_name("certificates")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "server.pem")
    client.load_verify_locations(folder / "authority.pem")
    accepted: list[socket.socket] = []
    accepting = threading.Thread(target=lambda: accepted.append(server.wrap_socket(theirs, server_side=True)))
    accepting.start()
    ours = client.wrap_socket(ours, server_hostname="localhost")
    accepting.join()
    return ours, accepted[0]


KINDS: dict[str, Callable[[int], socket.socket]] = {
    "plain": lambda number: socket.socket(fileno=number),
    "cooperative": lambda number: Cooperative(fileno=number),
    "restless": lambda number: Restless(fileno=number),
    "deaf": lambda number: Deaf(fileno=number),
}


@pytest.fixture(params=[*KINDS, "tls"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection over TCP by each kind of socket, and the server's end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    if request.param == "tls":
        ours, theirs = encrypted(ours, theirs)
    else:
        ours = KINDS[request.param](ours.detach())
    with ours, theirs:
        yield Connection(ours), theirs


def test_kernel_keeps_the_timeouts_of_plain_sockets_alone(
    ends: tuple[Connection, socket.socket], request: pytest.FixtureRequest
) -> None:
    assert ends[0].by_kernel == (request.node.callspec.params["ends"] == "plain")


def test_connection_with_bytes_that_nobody_asked_for_is_not_taken(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, server = ends
    pool = Pool(1)
    for _ in range(2):
        server.sendall(WHOLE)
        connection.exchange(b"?", 10)
        pool.give(connection)
        assert pool.take() is connection
    pool.give(connection)
    server.sendall(WHOLE)
    assert wait_for_read(connection.sock, 10)
    assert pool.take() is None
    assert connection.sock.fileno() < 0


def test_silence_is_a_timeout_by_any_kind_of_socket(ends: tuple[Connection, socket.socket]) -> None:
    for said in (WHOLE, WHOLE, b"", WHOLE[:-1]):
        ends[1].sendall(said)
        if said == WHOLE:
            assert ends[0].exchange(b"?", 10).body == b"ok"
    with pytest.raises(TimeoutError):
        ends[0].exchange(b"?", 0.2)


def test_request_that_is_read_slowly_is_a_timeout(ends: tuple[Connection, socket.socket]) -> None:
    over = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.02):
                ends[1].recv(20_000)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ends[0].exchange(bytes(60_000_000), 1.0)
    # To read it all would take a minute.
    assert time.monotonic() - began < 30
    over.set()
    ends[0].close()
    reading.join()


def test_no_wait_outlasts_the_time_for_an_answer(
    ends: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LONGEST_ANSWER", -59.0)
    ends[1].sendall(WHOLE[:-1])
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        ends[0].exchange(b"?", 60.0)
    assert time.monotonic() - began < 30
