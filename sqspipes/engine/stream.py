"""Stream: the results of a run on their way to whoever iterates over them."""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from sqspipes.calls.held import Origin
from sqspipes.support import clocks
from sqspipes.support.wakeup import Wakeup

#: Seconds that a caller sleeps at a time. CPython does not wake the main thread for a signal that comes in the
#: moment before an untimed wait begins: with this one the signal's handler runs a little later.
SIGNAL_SECONDS = 0.25

#: Results that may wait for the reader before the tasks do. Those on their way to a next queue then still come: as
#: many as wait in its batcher, at the most.
MOST_RESULTS = 100


class _Result:
    """A value for the reader, with where it comes from."""

    __slots__ = ("is_safe", "origin", "value")

    def __init__(self, origin: Origin, value: Any) -> None:
        self.origin = origin
        self.value = value
        self.is_safe = False


class Stream:
    """A bounded queue of results. A result is safe when the reader asks for the one after it.

    The reader is mostly the main thread, in which a signal's handler may raise between any two lines. So the
    reader takes no lock, looks at a result before removing it, and leaves it to the stream's own thread to call
    results safe. ``died`` is told of an error there.
    """

    def __init__(
        self,
        safe: Callable[[Origin], None],
        forget: Callable[[Origin], None],
        died: Callable[[str, BaseException], None],
    ) -> None:
        self._safe = safe
        self._forget = forget
        self._died = died
        self._lock = threading.Lock()  # between those that offer and those that close
        self._results: deque[_Result] = deque()
        self._last: _Result | None = None
        self._closed = False
        self._offered, self._removed = Wakeup(), Wakeup()
        self._to_do: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="sqspipes results", daemon=True)

    def start(self) -> None:
        """Begin to call results safe."""
        self._thread.start()

    def wait_for_room(self) -> None:
        """Block while the reader is behind; a closed stream has room for all it will forget."""
        waited = False
        while len(self._results) >= MOST_RESULTS and not self._closed:
            self._removed.sleep(SIGNAL_SECONDS)
            waited = True
        if waited:
            self._removed.wake()  # another one may wait

    def offer(self, origin: Origin, value: Any) -> None:
        """Put a result at the end. After the close it is forgotten, so that its message is never acknowledged."""
        with self._lock:
            if not self._closed:
                self._results.append(_Result(origin, value))
                self._offered.wake()
                return
        self._forget(origin)

    def next(self, seconds: float = math.inf) -> tuple[Any] | None:
        """Call the last result safe and return the next one in a tuple; None at the end, or after so many seconds."""
        self.settle()
        deadline = clocks.monotonic() + seconds
        while not self._closed:
            if self._results:
                self._last = self._results[0]
                value = self._last.value
                self._results.popleft()
                self._removed.wake()
                return (value,)
            left = deadline - clocks.monotonic()
            if left <= 0:
                break
            self._offered.sleep(min(left, SIGNAL_SECONDS))
        return None

    def settle(self) -> None:
        """Call the last result safe: the reader is done with it."""
        if self._last is not None:
            self._to_do.put(partial(self._call_safe, self._last))
            self._last = None

    def _work(self) -> None:
        try:
            while (do := self._to_do.get()) is not None:
                do()
        except BaseException as error:
            self._died("results", error)

    def _call_safe(self, result: _Result) -> None:
        if not result.is_safe:  # A reader that was interrupted may tell of one twice.
            result.is_safe = True
            self._safe(result.origin)

    def close(self) -> None:
        """Let nothing more be read; results that were not read are forgotten.

        What the reader was done with before is safe afterwards.
        """
        with self._lock:
            self._closed = True
        self._offered.wake()
        self._removed.wake()
        caught_up = threading.Event()
        self._to_do.put(caught_up.set)
        while self._thread.is_alive() and not caught_up.wait(SIGNAL_SECONDS):
            pass
        # What the reader removes in this moment was its last one before.
        for result in (*self._results, self._last):
            if result is not None:
                self._forget(result.origin)

    def end(self) -> None:
        """Close, and end the stream's thread."""
        self.close()
        self._to_do.put(None)
