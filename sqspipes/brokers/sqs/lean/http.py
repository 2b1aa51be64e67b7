"""Connection: HTTP/1.1 over one socket, as much of it as an answer of SQS needs."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult

from sqspipes.brokers.sqs.lean.peeking import is_readable
from sqspipes.brokers.sqs.lean.timeouts import kernel_keeps_timeouts, set_kernel_timeouts
from sqspipes.support import clocks

#: Bytes asked of the socket at once: most answers come in one piece.
_PIECE = 65_536

#: Seconds that an answer may take to arrive, beyond the silence before it.
_LONGEST_ANSWER = 15.0

#: Bytes of an answer's head at most, of a line in a body, and of what follows a body.
_LONGEST_HEAD = 16_384

#: Bytes of an answer's body at most: ten messages of the largest size have less, with six bytes in JSON for each.
_LONGEST_BODY = 64 * 1_048_576

# What is not written as it has to be is refused: two readers that understand an answer differently are how one answer
# becomes two. https://www.rfc-editor.org/rfc/rfc9112
_TEXT = rb"[\t -~\x80-\xff]*"
_STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?")
_HEADER = re.compile(rb"([-!#$%&'*+.^_`|~0-9a-zA-Z]+):(" + _TEXT + rb")")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})(?:;" + _TEXT + rb")?[ \t]*")

#: Headers that decide where an answer ends: they may not be there twice.
_FRAMING = ("content-length", "transfer-encoding")

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

    __slots__ = (
        "sock",
        "by_kernel",
        "reusable",
        "idle_since",
        "_begun",
        "_deadline",
        "_timeout",
        "_rest",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        #: Whether the kernel keeps the timeouts.
        self.by_kernel = kernel_keeps_timeouts(sock)
        #: Whether another request may follow the one that was answered.
        self.reusable = False
        self.idle_since = 0.0
        self._timeout = 0.0
        self._begun = False
        self._deadline = 0.0
        self._rest = b""

    def exchange(self, request: bytes, timeout: float) -> Reply:
        """Send a request and return its answer; ``timeout`` is the longest silence, in seconds.

        Raises ``TimeoutError`` and ``BrokenAnswerError``; the connection is good for nothing then.
        """
        self.reusable = self._begun = False
        taken = self._send(request, timeout)
        self._wait_at_most(timeout)
        self._deadline = clocks.monotonic() + timeout + _LONGEST_ANSWER
        version, status, headers = self._head()
        body, ended = self._body(version, status, headers)
        said = headers.get("connection", "").lower()
        keeps = "close" not in said and (version == b"1.1" or "keep-alive" in said)
        self.reusable = taken and keeps and ended and not self._rest
        return Reply(status, headers, body)

    @property
    def dropped(self) -> bool:
        """Whether an idle connection was closed by the server, or has bytes that nobody asked for."""
        try:
            # What TLS has read already is not in the kernel any more.
            read = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
            return bool(read) or is_readable(self.sock)
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        """Close the socket; closing twice is no error."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def _send(self, request: bytes, timeout: float) -> bool:
        """Return whether the server took it all; one may refuse a request before it has read it."""
        self._wait_at_most(timeout)
        deadline = clocks.monotonic() + timeout
        try:
            sent = self.sock.send(request)
            if sent < len(request):
                left = memoryview(request)[sent:]
                while left:
                    self._go_on_until(deadline, "the request could not be sent in time")
                    left = left[self.sock.send(left) :]
        except BrokenPipeError:
            return False
        except _SILENCES as error:
            raise TimeoutError("the request could not be sent in time") from error
        except (OSError, ValueError) as error:
            raise self._broken(str(error) or "not sent") from error
        return True

    def _head(self) -> tuple[bytes, int, dict[str, str]]:
        """Return the version of HTTP, the status and the headers."""
        while True:
            first, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
            found = _STATUS.fullmatch(first)
            if not found:
                raise self._broken(f"the answer is not HTTP: {first[:80]!r}")
            version, status = found[1], int(found[2])
            headers = self._headers(lines)
            if status == 101:
                raise self._broken("the server wants another protocol")
            if status >= 200:
                return version, status, headers

    def _headers(self, lines: list[bytes]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            found = _HEADER.fullmatch(line)
            if not found:
                raise self._broken(f"not a header: {line[:80]!r}")
            name, value = found[1].decode().lower(), found[2].strip(b" \t").decode("latin-1")
            if name in headers:
                if name in _FRAMING:
                    raise self._broken(f"two headers {name}")
                value = f"{headers[name]}, {value}"
            headers[name] = value
        return headers

    def _body(self, version: bytes, status: int, headers: dict[str, str]) -> tuple[bytes, bool]:
        """Return the body, and whether it says itself where it ends."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None or version != b"1.1"):
            raise self._broken(
                f"Transfer-Encoding is {coding[:80]!r}, HTTP {version!r}, length {length!r:.80}"
            )
        if length is not None and not _LENGTH.fullmatch(length.encode()):
            raise self._broken(f"Content-Length is {length[:80]!r}")
        if status in (204, 304):
            return b"", True
        if coding is not None:
            return self._chunks(), True
        if length is None:
            return self._until_closed(), False
        self._check_length(int(length))
        return self._exactly(int(length)), True

    def _chunks(self) -> bytes:
        chunks, whole = [], 0
        while True:
            line = self._until(b"\r\n")
            found = _CHUNK.fullmatch(line)
            if not found:
                raise self._broken(f"not the size of a chunk: {line[:80]!r}")
            count = int(found[1], 16)
            whole += count
            self._check_length(whole)
            if count == 0:
                break
            chunks.append(self._exactly(count))
            if self._exactly(2) != b"\r\n":
                raise self._broken("a chunk is longer than its size")
        most = _LONGEST_HEAD
        while line := self._until(b"\r\n", most):
            self._headers([line])
            most -= len(line)
        return b"".join(chunks)

    def _check_length(self, length: int) -> None:
        if length > _LONGEST_BODY:
            raise self._broken(f"the answer is longer than {_LONGEST_BODY:,} bytes")

    def _until(self, mark: bytes, most: int = _LONGEST_HEAD) -> bytes:
        have = self._rest
        while (place := have.find(mark, 0, max(most, 0) + len(mark))) < 0:
            if len(have) > most + len(mark):
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
        pieces, whole = [self._rest], len(self._rest)
        self._rest = b""
        self._check_length(whole)
        while piece := self._read():
            pieces.append(piece)
            whole += len(piece)
            self._check_length(whole)
        return b"".join(pieces)

    def _piece(self) -> bytes:
        piece = self._read()
        if not piece:
            raise self._broken("the server closed the connection")
        return piece

    def _read(self) -> bytes:
        """Return what has come, and nothing at the end."""
        if self._begun:
            self._go_on_until(self._deadline, "the answer takes too long to arrive")
        try:
            piece = self.sock.recv(_PIECE)
        except _SILENCES as error:
            raise TimeoutError("no answer in time") from error
        except (OSError, ValueError) as error:
            raise self._broken(str(error)) from error
        self._begun = self._begun or bool(piece)
        return piece

    def _go_on_until(self, deadline: float, told: str) -> None:
        """Raise when a deadline is over, and let nothing that comes before it wait for much longer."""
        left = deadline - clocks.monotonic()
        if left <= 0:
            raise TimeoutError(told)
        if left < self._timeout / 2:
            self._wait_at_most(left)

    def _wait_at_most(self, seconds: float) -> None:
        """Set the longest silence."""
        if seconds == self._timeout:
            return
        self._timeout = seconds
        if self.by_kernel:
            set_kernel_timeouts(self.sock, seconds)
        else:
            self.sock.settimeout(seconds)

    def _broken(self, text: str) -> BrokenAnswerError:
        return BrokenAnswerError(text, begun=self._begun)


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
