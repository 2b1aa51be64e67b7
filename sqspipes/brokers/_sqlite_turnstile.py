"""The turnstile: processes write to one file by turns."""

from __future__ import annotations

import os
import sys
import threading

from sqspipes import clocks
from sqspipes.errors import BrokerUnavailableError

if sys.platform != "win32":
    import fcntl

#: Seconds to wait for a turn. A transaction takes milliseconds; whoever has the turn for longer was stopped, or is
#: another program that may open the lock files. Whoever asked repeats what failed, and says so: so that is soon.
LONGEST_TURN = 1.0

#: Seconds between two looks at a lock that is taken, at first and in the end. The kernel would wake a waiting process
#: sooner, but not give up.
_FIRST_PAUSE, _LAST_PAUSE = 0.00005, 0.002


class Turnstile:
    """Lets one process in after the other, in about the order in which they came.

    SQLite's own lock is polled for: one process can keep it for minutes while another starves. Here the one
    that waits holds ``turn``, so that the one that leaves cannot come back before it. The kernel drops both
    locks of a process that dies. It also keeps writes and checkpoints of several processes apart, which older
    SQLite can confuse: https://www.sqlite.org/wal.html#walresetbug. Windows has only SQLite's own lock.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._turn = self._main = -1
        self._inside = False
        if path is not None and sys.platform != "win32":
            self._turn = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._main = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except BaseException:
                self.close()
                raise

    def enter(self) -> None:
        """Be alone in the file, among all processes and brokers, until ``leave``; waits for a bounded time."""
        if sys.platform != "win32" and self._main >= 0:
            self._inside = True
            deadline = clocks.monotonic() + LONGEST_TURN
            self._take(self._turn, "turn", deadline)
            self._take(self._main, "lock", deadline)
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let the next one in; also after an ``enter`` that failed, and twice is no error."""
        if sys.platform != "win32" and self._inside:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            fcntl.flock(self._main, fcntl.LOCK_UN)
            self._inside = False

    def close(self) -> None:
        """Close the files. In a forked child this leaves the parent's locks alone."""
        turn, main, self._turn, self._main = self._turn, self._main, -1, -1
        self._inside = False
        for descriptor in (turn, main):
            if descriptor >= 0:
                os.close(descriptor)

    def _take(self, descriptor: int, name: str, deadline: float) -> None:
        if sys.platform != "win32":
            pause, nobody = _FIRST_PAUSE, threading.Event()
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if clocks.monotonic() >= deadline:
                        raise BrokerUnavailableError(
                            f"{self._path}-{name} was held by another process for {LONGEST_TURN:g} s"
                        ) from None
                nobody.wait(pause)
                pause = min(_LAST_PAUSE, pause * 1.2)
