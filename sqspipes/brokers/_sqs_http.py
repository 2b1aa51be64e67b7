"""Connection: HTTP/1.1 over one socket, as much of it as an answer of SQS needs."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from dataclasses import dataclass
from urllib.parse import SplitResult

from urllib3.util.wait import wait_for_read

from sqspipes import clocks

#: Bytes asked of the socket at once: most answers come in one piece.
_PIECE = 65_536

#: Seconds that an answer may take to arrive, beyond the silence before it.
_LONGEST_ANSWER = 15.0

#: Bytes of an answer's head at most.
_LONGEST_HEAD = 65_536

#: Digits of a body's length at most.
_LONGEST_LENGTH = 15

#: What a socket raises when its timeout is over: Python's own, or the kernel's.
_SILENCES = (TimeoutError, BlockingIOError)


class BrokenAnswerError(Exception):
    """The connection ended before the answer did, or the answer is not HTTP; ``begun``: some of it came."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A socket to a server, for one request at a time."""

    __slots__ = ("sock", "reusable", "idle_since", "_begun", "_deadline", "_timeout", "_rest")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        #: Whether another request may follow the one that was answered.
        self.reusable = False
        self.idle_since = 0.0
        self._timeout: float | None = None
        self._begun = False
        self._deadline = 0.0
        self._rest = b""

    def exchange(self, request: bytes, timeout: float) -> Reply:
        """Send a request and return its answer; ``timeout`` is the longest silence, in seconds.

        Raises ``TimeoutError`` and ``BrokenAnswerError``; the connection is good for nothing then.
        """
        self.reusable = self._begun = False
        if timeout != self._timeout:
            _set_timeout(self.sock, timeout)
            self._timeout = timeout
        taken = self._send(request)
        self._deadline = clocks.monotonic() + timeout + _LONGEST_ANSWER
        status, headers, keeps = self._head()
        body, ended = self._body(status, headers)
        self.reusable = taken and keeps and ended and not self._rest
        return Reply(status, headers, body)

    @property
    def dropped(self) -> bool:
        """Whether an idle connection was closed by the server, or has bytes that nobody asked for."""
        try:
            return wait_for_read(self.sock, 0)
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close the socket; closing twice is no error."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def _send(self, request: bytes) -> bool:
        """Return whether the server took it all; one may refuse a request before it has read it."""
        try:
            self.sock.sendall(request)
        except BrokenPipeError:
            return False
        except _SILENCES as error:
            raise TimeoutError("the request could not be sent in time") from error
        except (OSError, ValueError) as error:
            raise self._broken(str(error) or "not sent") from error
        return True

    def _head(self) -> tuple[int, dict[str, str], bool]:
        """Return the status, the headers, and whether the server keeps the connection."""
        while True:
            head = self._until(b"\r\n\r\n", _LONGEST_HEAD)
            first, *lines = head.decode("latin-1").split("\r\n")
            version, _, rest = first.partition(" ")
            code = rest[:3]
            if version not in ("HTTP/1.1", "HTTP/1.0") or not (len(code) == 3 and code.isdecimal()):
                raise self._broken(f"the answer is not HTTP: {first[:80]!r}")
            if code[0] != "1":
                break
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise self._broken(f"not a header: {line[:80]!r}")
            headers[name.lower()] = value.strip()
        said = headers.get("connection", "").lower()
        return int(code), headers, "close" not in said and (version == "HTTP/1.1" or "keep-alive" in said)

    def _body(self, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
        """Return the body, and whether it says itself where it ends."""
        if status in (204, 304):
            return b"", True
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise self._broken(f"Transfer-Encoding is {headers['transfer-encoding'][:80]!r}")
            return self._chunks(), True
        length = headers.get("content-length")
        if length is None:
            return self._until_closed(), False
        if not (length.isascii() and length.isdecimal()) or len(length) > _LONGEST_LENGTH:
            raise self._broken(f"Content-Length is {length[:80]!r}")
        return self._exactly(int(length)), True

    def _chunks(self) -> bytes:
        chunks = []
        while True:
            size, _, _ = self._until(b"\r\n", _LONGEST_HEAD).partition(b";")
            try:
                count = int(size.strip(), 16)
            except ValueError:
                raise self._broken(f"not the size of a chunk: {size[:80]!r}") from None
            if count < 0:
                raise self._broken(f"not the size of a chunk: {size[:80]!r}")
            if count == 0:
                break
            chunks.append(self._exactly(count))
            if self._exactly(2) != b"\r\n":
                raise self._broken("a chunk is longer than its size")
        while self._until(b"\r\n", _LONGEST_HEAD):
            pass
        return b"".join(chunks)

    def _until(self, mark: bytes, most: int) -> bytes:
        have = self._rest
        while (place := have.find(mark)) < 0:
            if len(have) > most:
                raise self._broken(f"the answer has no end of line in {most:,} bytes")
            have += self._piece()
        self._rest = have[place + len(mark) :]
        return have[:place]

    def _exactly(self, count: int) -> bytes:
        have = self._rest
        if len(have) < count:
            pieces, missing = [have], count - len(have)
            while missing > 0:
                piece = self._piece()
                pieces.append(piece)
                missing -= len(piece)
            have = b"".join(pieces)
        self._rest = have[count:]
        return have[:count] if len(have) > count else have

    def _until_closed(self) -> bytes:
        pieces = [self._rest]
        self._rest = b""
        while piece := self._read():
            pieces.append(piece)
        return b"".join(pieces)

    def _piece(self) -> bytes:
        piece = self._read()
        if not piece:
            raise self._broken("the server closed the connection")
        return piece

    def _read(self) -> bytes:
        """Return what has come, and nothing at the end."""
        if self._begun and clocks.monotonic() > self._deadline:
            raise TimeoutError("the answer takes too long to arrive")
        try:
            piece = self.sock.recv(_PIECE)
        except _SILENCES as error:
            raise TimeoutError("no answer in time") from error
        except (OSError, ValueError) as error:
            raise self._broken(str(error)) from error
        self._begun = self._begun or bool(piece)
        return piece

    def _broken(self, text: str) -> BrokenAnswerError:
        return BrokenAnswerError(text, begun=self._begun)


def _set_timeout(sock: socket.socket, seconds: float) -> None:
    """Have the kernel end what takes longer: with Python's own timeout each piece takes two system calls.

    In each the interpreter's lock goes to another thread, and this one has to wait for it. Over TLS there is no other
    way: Python's reads again when the kernel says that the time is over.
    """
    if os.name != "posix" or isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    if sock.gettimeout() is not None:
        sock.settimeout(None)
    whole = int(seconds)
    timeval = struct.pack("ll", whole, int((seconds - whole) * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, timeval)


def connected(server: SplitResult, tls: ssl.SSLContext | None, timeout: float) -> Connection:
    """Return a new connection to a URL's host; ``tls`` is None for plain HTTP.

    Raises ``TimeoutError``, ``ssl.SSLError`` and ``OSError``.
    """
    host = server.hostname or ""
    port = server.port or (80 if tls is None else 443)
    sock = socket.create_connection((host, port), timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if tls is not None:
            return Connection(tls.wrap_socket(sock, server_hostname=host))
    except BaseException:
        sock.close()
        raise
    return Connection(sock)
