"""Wakeup: lets a thread sleep until another wakes it, whatever a signal's handler raises meanwhile."""

from __future__ import annotations

import threading
from contextlib import suppress


class Wakeup:
    """A lock that the sleeper takes and the waker releases.

    An Event or a Condition takes its own lock in several lines of Python. An exception that a signal's handler
    raises between two of them leaves that lock taken, and every other thread waits for it for good.
    """

    __slots__ = ("_asleep",)

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """Wake who sleeps; if nobody does, the next sleep ends at once."""
        with suppress(RuntimeError):  # It was woken before.
            self._asleep.release()

    def sleep(self, seconds: float) -> None:
        """Sleep until woken, or for so many seconds."""
        self._asleep.acquire(timeout=seconds)
