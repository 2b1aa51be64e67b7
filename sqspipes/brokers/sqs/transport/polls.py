"""Polls: the long polls that are open in this process, and the way to end them at once.

To end a poll, the socket that waits for its answer is shut down. The lean transport tells which one that is.
botocore has no way to cancel a request; so where it carries the polls, the receiving client gets connection
pools that tell. Where botocore or urllib3 have changed so that this is impossible, polls end by themselves,
within 20 seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from botocore.awsrequest import AWSHTTPConnectionPool, AWSHTTPSConnectionPool
from urllib3.exceptions import ProtocolError

from sqspipes.support import lines

_logger = lines.logger(__name__)


class Polls:
    """The open polls of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupts = 0
        self._waiting: set[Any] = set()
        self._begun = threading.local()

    def install(self, client: Any) -> None:
        """Make a client's connections known here, before its first request."""
        try:
            pools = client._endpoint.http_session._pool_classes_by_scheme
            pools.update(
                http=_pool_class(AWSHTTPConnectionPool, self),
                https=_pool_class(AWSHTTPSConnectionPool, self),
            )
        except AttributeError:
            _logger.debug(
                "this botocore hides its connections: open polls end by themselves",
                exc_info=True,
            )

    @contextlib.contextmanager
    def begun(self) -> Iterator[Poll]:
        """Make this thread's next request a poll, one that an interrupt from here on ends."""
        poll = self._begun.poll = Poll(self, self.interrupts)
        try:
            yield poll
        finally:
            self._begun.poll = None

    @property
    def interrupts(self) -> int:
        """How many interrupts there were."""
        return self._interrupts

    def interrupt(self) -> None:
        """Shut the sockets of the open polls."""
        with self._lock:
            self._interrupts += 1
            waiting = list(self._waiting)
            for connection in waiting:
                _shut(connection)

    @contextlib.contextmanager
    def waiting(self, connection: Any) -> Iterator[None]:
        """Keep a connection in reach of ``interrupt`` while it waits for its answer."""
        with self._lock:
            self.check()
            self._waiting.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(connection)

    def check(self) -> None:
        """Raise if this thread's poll was interrupted before it was sent."""
        poll: Poll | None = getattr(self._begun, "poll", None)
        if poll is not None and poll.cut:
            raise ProtocolError("interrupted")


class Poll:
    """One receive; ``cut`` once an interrupt came after its begin."""

    def __init__(self, polls: Polls, interrupts: int) -> None:
        self._polls = polls
        self._interrupts = interrupts

    @property
    def cut(self) -> bool:
        return self._polls.interrupts != self._interrupts

    def waiting(self, connection: Any) -> contextlib.AbstractContextManager[None]:
        """Keep a connection in reach of ``interrupt`` while it waits for its answer."""
        return self._polls.waiting(connection)


def _shut(connection: Any) -> None:
    sock = getattr(connection, "sock", None)
    if sock is None:
        return
    with contextlib.suppress(OSError):
        if isinstance(sock, ssl.SSLSocket):
            # Below TLS: its own shutdown is not made for another thread's read.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)


def _pool_class(base: Any, polls: Polls) -> Any:
    """Return a pool class whose connections are known to ``polls`` while they wait for an answer."""

    class CutConnection(base.ConnectionCls):  # type: ignore[misc]
        def connect(self) -> Any:
            connected = super().connect()
            # An interrupt during the connect found no socket to shut.
            polls.check()
            return connected

    class CutPool(base):  # type: ignore[misc]
        ConnectionCls = CutConnection

        def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
            with polls.waiting(conn):
                return super()._make_request(conn, *args, **kwargs)

    return CutPool
