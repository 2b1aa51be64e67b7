"""Connection: HTTP/1.1 over one socket that blocks."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import SplitResult

from sqspipes.brokers.sqs.lean.peeking import is_readable
from sqspipes.brokers.sqs.lean.reply import Answered, BrokenAnswerError, Reply, reading
from sqspipes.brokers.sqs.lean.timeouts import kernel_keeps_timeouts, set_kernel_timeouts
from sqspipes.support import clocks

#: Bytes asked of the socket at once: most answers come in one piece.
_PIECE = 65_536

#: Seconds that an answer may take to arrive, beyond the silence before it.
LONGEST_ANSWER = 15.0

#: What a socket raises when its timeout is over: Python's own, or the kernel's.
_SILENCES = (TimeoutError, BlockingIOError)


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

    def exchange(self, request: bytes, timeout: float) -> Reply:
        """Send a request and return its answer; ``timeout`` is the longest silence, in seconds.

        Raises ``TimeoutError`` and ``BrokenAnswerError``; the connection is good for nothing then.
        """
        self.reusable = self._begun = False
        taken = self._send(request, timeout)
        self._wait_at_most(timeout)
        self._deadline = clocks.monotonic() + timeout + LONGEST_ANSWER
        answer = reading()
        next(answer)
        try:
            while True:
                answer.send(self._read())
        except StopIteration as end:
            answered: Answered = end.value
        self.reusable = taken and answered.keeps
        return answered.reply

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
