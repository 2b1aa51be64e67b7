"""The turnstile: processes write to one file by turns."""

from __future__ import annotations

import os
import stat
import sys
import threading
from contextlib import suppress

from sqspipes.errors import BrokerUnavailableError
from sqspipes.support import clocks
from sqspipes.support.backoff import ExponentialBackoff

if sys.platform != "win32":
    import fcntl

#: Seconds to wait for a turn. A transaction takes milliseconds; whoever has the turn for longer was stopped, or is
#: another program that may open the lock files. Whoever asked repeats what failed, and says so: so that is soon.
LONGEST_TURN = 1.0

#: Seconds between two looks at a lock that is taken, at first and in the end. The kernel would wake a waiting process
#: sooner, but not give up.
_PAUSES = ExponentialBackoff(0.00005, 0.002, factor=1.2)


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
        self._inside = self._waits = False
        self._made: list[str] = []
        if path is not None and sys.platform != "win32":
            try:
                self._turn = self._opened(f"{path}-turn")
                self._main = self._opened(f"{path}-lock")
                self.match()
            except BaseException:
                self.close()
                raise

    def _opened(self, path: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        with suppress(FileExistsError):
            descriptor = os.open(path, flags | os.O_EXCL, 0o666)
            self._made.append(path)
            return descriptor
        return os.open(path, flags, 0o666)

    def match(self) -> None:
        """Give the lock files the rights of the database, once there is one: who may not use it holds up nobody."""
        if sys.platform == "win32" or self._path is None or not os.path.exists(self._path):
            return
        database = os.stat(self._path)
        mode = stat.S_IMODE(database.st_mode) & 0o666
        for descriptor in (self._turn, self._main):
            found = os.fstat(descriptor)
            if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (database.st_uid, database.st_gid):
                os.fchown(descriptor, database.st_uid, database.st_gid)
            if stat.S_IMODE(found.st_mode) != mode and os.geteuid() in (0, found.st_uid):
                os.fchmod(descriptor, mode)

    def remove(self) -> None:
        """Delete the lock files that were made here: the database is another program's."""
        for path in self._made:
            with suppress(OSError):
                os.remove(path)

    def enter(self) -> None:
        """Be alone in the file, among all processes and brokers, until ``leave``; waits for a bounded time."""
        if sys.platform != "win32" and self._main >= 0:
            self._inside = self._waits = True
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._main, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                deadline = clocks.monotonic() + LONGEST_TURN
                self._take(self._turn, "turn", deadline)
                self._take(self._main, "lock", deadline)
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            self._waits = False

    def leave(self) -> None:
        """Let the next one in; also after an ``enter`` that failed, and twice is no error."""
        if sys.platform != "win32" and self._inside:
            if self._waits:
                fcntl.flock(self._turn, fcntl.LOCK_UN)
                self._waits = False
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
            tries, nobody = 0, threading.Event()
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    if clocks.monotonic() >= deadline:
                        raise BrokerUnavailableError(
                            f"{self._path}-{name} was held by another process for {LONGEST_TURN:g} s"
                        ) from None
                tries += 1
                nobody.wait(_PAUSES.seconds(tries))
