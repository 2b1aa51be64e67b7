"""Stream: the results of a run on their way to whoever iterates over them."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from sqspipes import clocks
from sqspipes.runner.held import Origin

#: Seconds that a caller sleeps at a time. CPython does not wake the main thread for a signal that comes in the
#: moment before an untimed wait begins: with this one the signal's handler runs a little later.
SIGNAL_SECONDS = 0.25

#: Results that may wait for the reader before the tasks do. Those on their way to a next queue then still come: as
#: many as wait in its batcher, at the most.
MOST_RESULTS = 100


class Stream:
    """A bounded queue of results. A result is safe when the reader asks for the one after it."""

    def __init__(self, safe: Callable[[Origin], None], forget: Callable[[Origin], None]) -> None:
        self._safe = safe
        self._forget = forget
        self._changed = threading.Condition()
        self._results: deque[tuple[Origin, Any]] = deque()
        self._last: Origin | None = None
        self._closed = False

    def wait_for_room(self) -> None:
        """Block while the reader is behind; a closed stream has room for all it will forget."""
        with self._changed:
            while len(self._results) >= MOST_RESULTS and not self._closed:
                self._changed.wait()

    def offer(self, origin: Origin, value: Any) -> None:
        """Put a result at the end. After the close it is forgotten, so that its message is never acknowledged."""
        with self._changed:
            if not self._closed:
                self._results.append((origin, value))
                self._changed.notify_all()
                return
        self._forget(origin)

    def next(self, seconds: float = math.inf) -> tuple[Any] | None:
        """Call the last result safe and return the next one in a tuple; None at the end, or after so many seconds."""
        self.settle()
        deadline = clocks.monotonic() + seconds
        with self._changed:
            while not self._results:
                left = deadline - clocks.monotonic()
                if self._closed or left <= 0:
                    return None
                self._changed.wait(min(left, SIGNAL_SECONDS))
            self._last, value = self._results.popleft()
            self._changed.notify_all()
            return (value,)

    def settle(self) -> None:
        """Call the last result safe: the reader is done with it."""
        origin, self._last = self._last, None
        if origin is not None:
            self._safe(origin)

    def close(self) -> None:
        """End the stream; results that were not read are forgotten."""
        with self._changed:
            self._closed = True
            forgotten = [origin for origin, _ in self._results]
            self._results.clear()
            last = self._last
            if last is not None:
                forgotten.append(last)
            self._changed.notify_all()
        for origin in forgotten:
            self._forget(origin)
