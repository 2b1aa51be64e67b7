"""A transaction: what the requests that share it have in common."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.defaults import DEDUPLICATION_SECONDS
from sqspipes.errors import QueueMissingError

# Old deduplication ids are dropped at each so many messages, twice as many at most.
_SWEEP = 100

#: Milliseconds for which a queue knows a deduplication id.
REMEMBERED = int(DEDUPLICATION_SECONDS * 1000)

SWEEP = "DELETE FROM seen WHERE seq IN (SELECT seq FROM seen ORDER BY seq LIMIT ?) AND at<=?"

OCCUPIED = """
WITH given(lane) AS (VALUES {rows})
SELECT lane FROM given WHERE EXISTS(SELECT 1 FROM message m WHERE m.queue=? AND m.lane=given.lane)"""


class Queue(NamedTuple):
    """A queue's row."""

    id: int
    name: str
    origin: int
    dead: str | None
    max_receives: int


class Transaction:
    """What a request works with: the connection, the file's id and the time in milliseconds.

    Requests name in ``rung`` the queues in which something became deliverable. What many requests of one
    transaction would read or write again and again, it reads once and writes once.
    """

    __slots__ = ("_counts", "_first", "_last", "_queues", "database", "expired", "file", "now", "rung")

    def __init__(self, database: sqlite3.Connection, file: str, now: int) -> None:
        self.database = database
        self.file = file
        self.now = now
        self.rung: set[str] = set()
        #: The queues whose leases were looked through.
        self.expired: set[int] = set()
        self._queues: dict[str, Queue] = {}
        self._counts: dict[int, int] = {}
        self._first = self._last = 0

    def find(self, name: str) -> Queue | None:
        """Return a queue's row, or None."""
        queue = self._queues.get(name)
        if queue is None:
            sql = "SELECT id, name, ifnull(origin, id), dead, max_receives FROM queue WHERE name=?"
            for row in self.database.execute(sql, (name,)).fetchall():
                queue = self._queues[name] = Queue(*row)
        return queue

    def found(self, name: str) -> Queue:
        """Return a queue's row; one that is not there is an error."""
        queue = self.find(name)
        if queue is None:
            raise QueueMissingError(name)
        return queue

    def forget(self) -> None:
        """Read the queues again: some were changed."""
        self._queues.clear()

    def count(self, queue: Queue, change: int) -> None:
        """Change the number of a queue's messages."""
        self._counts[queue.id] = self._counts.get(queue.id, 0) + change

    def numbers(self, count: int) -> int:
        """Take numbers for ``count`` messages and return the first; no number comes twice."""
        if not self._last:
            ((self._last,),) = self.database.execute("SELECT last FROM file").fetchall()
            self._first = self._last
        self._last += count
        return self._last - count + 1

    def occupied(self, queue: Queue, lanes: Sequence[int]) -> list[int]:
        """Return the lanes that have messages."""
        occupied: list[int] = []
        for start in range(0, len(lanes), 100):
            part = lanes[start : start + 100]
            sql = OCCUPIED.format(rows=rows("(?)", len(part)))
            occupied += (lane for (lane,) in self.database.execute(sql, (*part, queue.id)).fetchall())
        return occupied

    def finish(self) -> None:
        """Write what was gathered, and drop deduplication ids that are old enough."""
        for queue, change in self._counts.items():
            self.database.execute("UPDATE queue SET total=total+? WHERE id=?", (change, queue))
        if self._last:
            self.database.execute("UPDATE file SET last=?", (self._last,))
            rounds = self._last // _SWEEP - self._first // _SWEEP
            if rounds:
                self.database.execute(SWEEP, (2 * _SWEEP * rounds, self.now - REMEMBERED))


def rows(row: str, count: int) -> str:
    """Return the placeholders of so many rows."""
    return ",".join([row] * count)
