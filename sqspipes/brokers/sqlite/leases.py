"""What becomes of messages in flight. Each function runs in a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqspipes.brokers.sqlite.transaction import Queue, Transaction, rows

# A receive takes note of so many leases that ended.
_EXPIRED = 1000

EXPIRED = "SELECT seq, lane FROM flight WHERE queue=? AND lease<=? LIMIT ?"

# The plus signs keep the planner from reading every lease of the queue to find ten by their key.
HELD = "SELECT seq, lane, receives FROM flight WHERE seq IN ({marks}) AND +queue=? AND +lease>?"

#: Entries of a request: a commit for 32 costs less than twice that of one for ten.
MOST_ENTRIES = 32

# Of a group what one receive took is in flight, so always some of its first messages. The first one is found before
# anything is asked of it: else SQLite would ask that of every message of the group.
UNBLOCK = f"""
INSERT OR IGNORE INTO ready(queue, seq, lane)
SELECT queue, seq, lane FROM (
    SELECT queue, seq, lane FROM message WHERE queue=:queue AND lane=:lane ORDER BY seq LIMIT 1) first
WHERE NOT EXISTS(
    SELECT 1 FROM (SELECT seq FROM message WHERE queue=:queue AND lane=:lane ORDER BY seq LIMIT {MOST_ENTRIES}) m
    CROSS JOIN flight f ON f.seq=m.seq WHERE f.lease IS NOT NULL)"""

#: A receipt as the tables know it: a message, and which of its receives; None is no receipt of this file.
Mark = tuple[int, int] | None


def ack(transaction: Transaction, name: str, marks: Sequence[Mark]) -> list[bool]:
    """Delete the messages that are held by these receipts, and say which ones were."""
    queue = transaction.found(name)
    held = _held(transaction, queue, marks)
    if held:
        delete(transaction, queue, [seq for seq, _ in held])
        unblock(transaction, queue, held.values())
    return [mark in held for mark in marks]


def extend(transaction: Transaction, name: str, leases: Sequence[tuple[Mark, float]]) -> list[bool]:
    """Set the leases that are held by these receipts, 0 ends one, and say which ones were held."""
    queue = transaction.found(name)
    held = _held(transaction, queue, [mark for mark, _ in leases])
    ends: dict[tuple[int, int], int | None] = {}
    for mark, seconds in leases:
        if mark is not None and mark in held:
            ends[mark] = transaction.now + int(seconds * 1000) if seconds > 0 else None
    changes = [(end, seq) for (seq, _), end in ends.items()]
    transaction.database.executemany("UPDATE flight SET lease=? WHERE seq=?", changes)
    unblock(transaction, queue, [held[mark] for mark, end in ends.items() if end is None])
    return [mark in held for mark, _ in leases]


def expire(transaction: Transaction, queue: Queue) -> None:
    """Take note of leases that ended; the row stays and keeps the count."""
    if queue.id in transaction.expired:
        return
    transaction.expired.add(queue.id)
    given = (queue.id, transaction.now, _EXPIRED)
    expired = transaction.database.execute(EXPIRED, given).fetchall()
    if expired:
        seqs = [(seq,) for seq, _ in expired]
        transaction.database.executemany("UPDATE flight SET lease=NULL WHERE seq=?", seqs)
        unblock(transaction, queue, [lane for _, lane in expired])


def unblock(transaction: Transaction, queue: Queue, lanes: Iterable[int]) -> None:
    """Make the groups deliverable of which nothing is in flight any more."""
    occupied = transaction.occupied(queue, list(set(lanes)))
    if occupied:
        given = [{"queue": queue.id, "lane": lane} for lane in occupied]
        if transaction.database.executemany(UNBLOCK, given).rowcount > 0:
            transaction.rung.add(queue.name)


def delete(transaction: Transaction, queue: Queue, seqs: Sequence[int]) -> None:
    """Delete messages, which are in flight or were."""
    marks = rows("?", len(seqs))
    transaction.database.execute(f"DELETE FROM flight WHERE seq IN ({marks})", seqs)
    transaction.database.execute(f"DELETE FROM message WHERE seq IN ({marks})", seqs)
    transaction.count(queue, -len(seqs))


def _held(transaction: Transaction, queue: Queue, marks: Sequence[Mark]) -> dict[tuple[int, int], int]:
    """Return the receipts that hold a message now, with its lane."""
    given = {mark for mark in marks if mark is not None}
    if not given:
        return {}
    sql = HELD.format(marks=rows("?", len(given)))
    values = (*(seq for seq, _ in given), queue.id, transaction.now)
    found = transaction.database.execute(sql, values).fetchall()
    return {(seq, receives): lane for seq, lane, receives in found if (seq, receives) in given}
