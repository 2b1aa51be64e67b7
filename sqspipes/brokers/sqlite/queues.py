"""What happens to queues: made, found, counted, emptied, deleted. Each function is part of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqspipes.brokers.base import Depth, QueueSpec
from sqspipes.brokers.sqlite.transaction import Transaction
from sqspipes.errors import QueueMissingError

#: A queue that was emptied is cleaned up so many messages at a time: nobody waits long for that.
_CLEANED = 1000

DUE = """
SELECT EXISTS(SELECT 1 FROM ready WHERE queue=q.id),
    (SELECT lease FROM flight WHERE queue=q.id AND lease IS NOT NULL ORDER BY lease LIMIT 1)
FROM queue q WHERE name=?"""

DEPTH = "SELECT total, (SELECT count(*) FROM flight WHERE queue=q.id AND lease>?) FROM queue q WHERE name=?"


def declare(transaction: Transaction, specs: Sequence[QueueSpec]) -> None:
    """Make the queues that are missing, with their tags."""
    sql = "INSERT INTO queue(name, dead, max_receives) VALUES(?,?,?) ON CONFLICT(name) DO NOTHING"
    for spec in specs:
        made = transaction.database.execute(sql, (spec.name, spec.dead_letters, spec.max_receives))
        if made.rowcount and spec.tags:
            tag(transaction, spec.name, spec.tags)


def demand(transaction: Transaction, names: Sequence[str]) -> None:
    """Find all queues."""
    for name in names:
        transaction.found(name)


def listed(transaction: Transaction, prefix: str) -> list[str]:
    """Return the names that begin with a prefix."""
    sql = "SELECT name FROM queue WHERE substr(name, 1, ?)=? ORDER BY name"
    return [name for (name,) in transaction.database.execute(sql, (len(prefix), prefix)).fetchall()]


def depth(transaction: Transaction, name: str) -> Depth:
    """Count a queue's messages."""
    rows = transaction.database.execute(DEPTH, (transaction.now, name)).fetchall()
    if not rows:
        raise QueueMissingError(name)
    ((total, in_flight),) = rows
    return Depth(total - in_flight, in_flight)


def due(transaction: Transaction, name: str) -> float:
    """Return the wall time at which the queue has something to hand out: 0 now, infinity not yet known."""
    rows = transaction.database.execute(DUE, (name,)).fetchall()
    if not rows:
        return 0.0  # Whoever waits is to find out that the queue is gone.
    ((ready, lease),) = rows
    if ready:
        return 0.0
    return float("inf") if lease is None else float(lease) / 1000


def tags(transaction: Transaction, name: str) -> dict[str, str]:
    """Return a queue's tags."""
    sql = "SELECT name, value FROM tag WHERE queue=?"
    return dict(transaction.database.execute(sql, (transaction.found(name).origin,)).fetchall())


def tag(transaction: Transaction, name: str, tags: Mapping[str, str | None]) -> None:
    """Set and remove tags of a queue."""
    queue = transaction.found(name).origin
    for key, value in tags.items():
        if value is None:
            transaction.database.execute("DELETE FROM tag WHERE queue=? AND name=?", (queue, key))
        else:
            transaction.database.execute("INSERT OR REPLACE INTO tag VALUES(?,?,?)", (queue, key, value))


def version(transaction: Transaction) -> int:
    """Return a number that changes with each commit of another connection."""
    ((number,),) = transaction.database.execute("PRAGMA data_version").fetchall()
    return int(number)


def purge(transaction: Transaction, name: str) -> None:
    """Put an empty queue, which knows the old deduplication ids, in the place of one."""
    queue = transaction.found(name)
    transaction.database.execute("UPDATE queue SET name=NULL WHERE id=?", (queue.id,))
    transaction.database.execute(
        "INSERT INTO queue(name, origin, dead, max_receives) VALUES(?,?,?,?)",
        (name, queue.origin, queue.dead, queue.max_receives),
    )
    transaction.forget()


def delete(transaction: Transaction, name: str) -> None:
    """Take a queue's name and tags away: nobody finds it any more."""
    queue = transaction.find(name)
    if queue is not None:
        transaction.database.execute("DELETE FROM tag WHERE queue=?", (queue.origin,))
    transaction.database.execute("UPDATE queue SET name=NULL WHERE name=?", (name,))
    transaction.rung.add(name)
    transaction.forget()


def clean(transaction: Transaction) -> bool:
    """Delete some of what queues without a name hold, and say whether there may be more."""
    database = transaction.database
    nameless = database.execute("SELECT id FROM queue WHERE name IS NULL LIMIT 1").fetchall()
    if not nameless:
        return False
    ((queue,),) = nameless
    seqs = database.execute("SELECT seq FROM message WHERE queue=? LIMIT ?", (queue, _CLEANED)).fetchall()
    if not seqs:
        database.execute("DELETE FROM queue WHERE id=?", (queue,))
    database.executemany("DELETE FROM ready WHERE queue=? AND seq=?", [(queue, seq) for (seq,) in seqs])
    database.executemany("DELETE FROM flight WHERE seq=?", seqs)
    database.executemany("DELETE FROM message WHERE seq=?", seqs)
    return True
