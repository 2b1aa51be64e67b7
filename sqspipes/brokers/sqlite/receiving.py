"""How messages leave a queue. Each function runs in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.brokers.sqlite.leases import delete, expire, unblock
from sqspipes.brokers.sqlite.sending import lane_of
from sqspipes.brokers.sqlite.transaction import Queue, Transaction, rows

HEADS = """
SELECT m.seq, m.lane, m.grp, m.body, ifnull(f.receives, 0), m.sent
FROM (SELECT seq, lane FROM ready WHERE queue=:queue ORDER BY seq LIMIT :count) h
CROSS JOIN message m INDEXED BY message_lane ON m.queue=:queue AND m.lane=h.lane
LEFT JOIN flight f ON f.seq=m.seq LIMIT :count"""


class Row(NamedTuple):
    """A message as the tables have it, received ``receives`` times before; ``sent`` in milliseconds."""

    seq: int
    lane: int
    group: str
    body: str
    receives: int
    sent: int


def receive(transaction: Transaction, name: str, count: int, lease: float) -> list[Row]:
    """Take up to ``count`` messages: the group that waited longest as far as it goes, then the next."""
    queue = transaction.found(name)
    expire(transaction, queue)
    taken = _heads(transaction, queue, count)
    while doomed := [row for row in taken if row.receives >= queue.max_receives]:
        dead = None if queue.dead is None else transaction.find(queue.dead)
        if dead is None:
            break
        _bury(transaction, queue, dead, doomed)
        taken = _heads(transaction, queue, count)
    if taken:
        _take(transaction, queue, taken, lease)
    return taken


def _heads(transaction: Transaction, queue: Queue, count: int) -> list[Row]:
    given = {"queue": queue.id, "count": count}
    return [Row(*row) for row in transaction.database.execute(HEADS, given).fetchall()]


def _take(transaction: Transaction, queue: Queue, taken: Sequence[Row], lease: float) -> None:
    """Put messages in flight, and their groups out of reach."""
    end = transaction.now + int(lease * 1000)
    seqs = [row.seq for row in taken]
    sql = f"DELETE FROM ready WHERE queue=? AND seq IN ({rows('?', len(seqs))})"
    transaction.database.execute(sql, (queue.id, *seqs))
    values: list[int] = []
    for row in taken:
        values += (row.seq, queue.id, row.lane, end, row.receives + 1)
    marks = rows("(?,?,?,?,?)", len(taken))
    sql = f"INSERT OR REPLACE INTO flight(seq, queue, lane, lease, receives) VALUES {marks}"
    transaction.database.execute(sql, values)


def _bury(transaction: Transaction, queue: Queue, dead: Queue, doomed: Sequence[Row]) -> None:
    """Move messages to the dead-letter queue.

    Each keeps its group's name but gets a lane of its own: dead letters do not wait for one another, so that
    all can be listed.
    """
    database = transaction.database
    for seq, row in enumerate(doomed, transaction.numbers(len(doomed))):
        lane = lane_of(f"{transaction.file}-{seq}")
        sql = "INSERT INTO message(seq, queue, lane, sent, grp, body) VALUES(?,?,?,?,?,?)"
        database.execute(sql, (seq, dead.id, lane, row.sent, row.group, row.body))
        database.execute("INSERT INTO ready(queue, seq, lane) VALUES(?,?,?)", (dead.id, seq, lane))
        database.execute("DELETE FROM ready WHERE queue=? AND seq=?", (queue.id, row.seq))
    transaction.count(dead, len(doomed))
    delete(transaction, queue, [row.seq for row in doomed])
    unblock(transaction, queue, [row.lane for row in doomed])
    transaction.rung.add(dead.name)
