"""The turnstile: processes write to one file by turns."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import fcntl


class Turnstile:
    """Lets one process in after the other, in about the order in which they came.

    SQLite's own lock is polled for: one process can keep it for minutes while another starves. Here the one
    that waits holds ``turn``, so that the one that leaves cannot come back before it. The kernel drops both
    locks of a process that dies. It also keeps writes and checkpoints of several processes apart, which older
    SQLite can confuse: https://www.sqlite.org/wal.html#walresetbug. Windows has only SQLite's own lock.
    """

    def __init__(self, path: str | None) -> None:
        self._turn = self._main = -1
        if path is not None and sys.platform != "win32":
            self._turn = os.open(f"{path}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._main = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except BaseException:
                self.close()
                raise

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Be alone in the file, among all processes and brokers."""
        if sys.platform == "win32" or self._main < 0:
            yield
            return
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
            fcntl.flock(self._main, fcntl.LOCK_EX)
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            fcntl.flock(self._main, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files. In a forked child this leaves the parent's locks alone."""
        for descriptor in (self._turn, self._main):
            if descriptor >= 0:
                os.close(descriptor)
        self._turn = self._main = -1
