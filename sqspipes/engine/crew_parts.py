"""CrewParts: what a crew is made of, locks, threads and clocks; a test puts others in their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from sqspipes.support import clocks


class CrewLock(Protocol):
    """A lock, as ``threading.Lock`` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


class CrewParts:
    """What a crew is made of; a test may put others in their place."""

    def lock(self) -> CrewLock:
        """Return a new lock."""
        return threading.Lock()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def thread(self) -> object:
        """Return what the calling thread is known by."""
        return threading.get_ident()

    def now(self) -> float:
        """Return the monotonic clock's time."""
        return clocks.monotonic()

    def cpu_clock(self) -> int | None:
        """Return what names the processor clock of the calling thread; None where there is none.

        The thread asks for itself: to ask about a thread that has ended crashes the process.
        """
        if not hasattr(time, "pthread_getcpuclockid"):
            return None
        try:
            return time.pthread_getcpuclockid(threading.get_ident())
        except (OSError, ValueError, OverflowError):  # under gevent an identity is none of the system's
            return None

    def cpu_seconds(self, clock: int | None) -> float | None:
        """Return the processor time of a thread; None if it is not known, as after the thread's end."""
        if clock is None:
            return None
        try:
            return time.clock_gettime(clock)
        except OSError:
            return None
