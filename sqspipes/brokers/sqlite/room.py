"""Room: what is put leaves enough of the disk for what is acknowledged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys

if sys.platform != "win32":
    import resource

#: Bytes that are kept for the log, and for the leases of what is received; an eighth of a disk that is smaller.
RESERVE, _PART = 4_194_304, 8

#: Free bytes with which nobody counts.
_PLENTY = 1_073_741_824

#: What messages take beside their bodies, roughly: bytes of each one's rows, and pages of all.
_ROWS, _PAGES = 1_024, 4


class FullError(sqlite3.OperationalError):
    """The disk has no room but what is kept free; to the store it is as SQLite's own error."""

    sqlite_errorcode = 13

    def __init__(self) -> None:
        super().__init__("the disk is full, but for the room that acknowledging takes")


class Room:
    """The room of one file and of its log.

    What is acknowledged is written into the log, and the log has to be brought into the file before its room is used
    again. So the free room always has to hold what the log has and the file has not, and a reserve.
    """

    def __init__(self, database: sqlite3.Connection, path: str | None) -> None:
        self._database = database
        self._path = path
        self._page = self._asked("page_size")

    def check(self, size: int, messages: int, *, restarted: bool) -> None:
        """Raise ``FullError`` where messages do not fit, or the log has to be brought into the file while it can be.

        ``restarted``: that was done, and the log begins anew in its own room.
        """
        free = self._free()
        if free is None:
            return
        stored = self._asked("page_count") * self._page
        length = _length(self._path)
        longest = _longest()
        reserve = min(RESERVE, min(length + free, longest) // _PART)
        left = free - max(0, stored - length)  # once the log is in the file
        if not messages:
            if not restarted and stored > length and left < reserve // 2:
                raise FullError
            return
        needed = size + size // 8 + messages * _ROWS + _PAGES * self._page
        growth = max(0, needed - self._asked("freelist_count") * self._page)
        log = max(0, needed - _length(f"{self._path}-wal")) if restarted else needed
        if (growth or log) and (left < reserve + growth + log or stored + growth > longest - reserve):
            raise FullError

    def _free(self) -> int | None:
        """Return the free bytes of the disk; None where there are plenty, and for a database in memory."""
        if self._path is None:
            return None
        try:
            free = shutil.disk_usage(self._path).free
        except OSError:
            return None
        return None if free > _PLENTY and _longest() == sys.maxsize else free

    def _asked(self, pragma: str) -> int:
        ((value,),) = self._database.execute(f"PRAGMA {pragma}").fetchall()
        return int(value)


def _length(path: str | None) -> int:
    try:
        return os.path.getsize(path or "")
    except OSError:
        return 0


def _longest() -> int:
    """Return how long a file of this process may be (``ulimit -f``)."""
    if sys.platform == "win32":
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
