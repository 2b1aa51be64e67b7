"""Pool: the connections that wait for a request, the newest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sqspipes.brokers.sqs.lean.http import Connection
from sqspipes.support import clocks

#: Seconds after which an idle connection is closed: sooner than servers and firewalls forget one.
MOST_IDLE = 30.0


class Pool:
    """Connections that are kept. No lock: a deque's ends are safe, and nothing else is touched."""

    def __init__(self, most: int, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._idle: deque[Connection] = deque()
        self._closed = False

    def take(self) -> Connection | None:
        """Return a connection that answered a moment ago, or None: then a new one is needed."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            # What came when nobody had asked would be taken for the next answer.
            if self._clock() - connection.idle_since < MOST_IDLE and not connection.dropped:
                return connection
            connection.close()

    def give(self, connection: Connection) -> None:
        """Keep a connection for the next request, or close it."""
        if not connection.reusable or len(self._idle) >= self._most:
            connection.close()
            return
        connection.idle_since = now = self._clock()
        self._idle.append(connection)
        if self._closed:
            self.close()
        else:
            self._drop_before(now - MOST_IDLE)

    def close(self) -> None:
        """Close the idle connections, and from now on those that are given back."""
        self._closed = True
        self._drop_before(float("inf"))

    def _drop_before(self, time: float) -> None:
        """Close those at the old end that are idle since before a time."""
        while True:
            try:
                if self._idle[0].idle_since >= time:
                    return
                oldest = self._idle.popleft()
            except IndexError:
                return
            if oldest.idle_since >= time:
                # Another thread was faster, and this one is not as old.
                self._idle.appendleft(oldest)
                return
            oldest.close()
