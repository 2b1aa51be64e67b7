"""How messages come into a queue. Each function runs in a transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.brokers.base import Entry
from sqspipes.brokers.sqlite.transaction import REMEMBERED, Queue, Transaction, rows


class StoredEntry(NamedTuple):
    """An entry ready to be stored: its group and its id as the tables know them."""

    lane: int
    key: bytes
    entry: Entry


def parcel(entry: Entry) -> StoredEntry:
    """Return an entry with its hashes: work that needs no connection."""
    text = f"{len(entry.group)}:{entry.group}{entry.id}".encode()
    return StoredEntry(lane_of(entry.group), hashlib.blake2b(text, digest_size=16).digest(), entry)


def lane_of(group: str) -> int:
    """Return the number that stands for a group."""
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big", signed=True)


def send(transaction: Transaction, name: str, parcels: Sequence[StoredEntry]) -> None:
    """Store what is new, in order."""
    queue = transaction.found(name)
    if not parcels:
        return
    numbered = list(enumerate(parcels, transaction.numbers(len(parcels))))
    won = _unseen(transaction, queue, numbered)
    fresh = [(seq, each) for seq, each in numbered if seq in won]
    if fresh:
        _store(transaction, queue, fresh)
        transaction.rung.add(name)


def _unseen(transaction: Transaction, queue: Queue, numbered: Sequence[tuple[int, StoredEntry]]) -> set[int]:
    """Remember the ids, and return the numbers of the parcels whose ids were not known."""
    values: list[object] = []
    for seq, each in numbered:
        values += (seq, queue.origin, each.key, transaction.now)
    sql = f"""
        INSERT INTO seen(seq, queue, key, at) VALUES {rows("(?,?,?,?)", len(numbered))}
        ON CONFLICT(queue, key) DO UPDATE SET seq=excluded.seq, at=excluded.at
        WHERE at<=excluded.at-{REMEMBERED} RETURNING seq"""
    return {seq for (seq,) in transaction.database.execute(sql, values).fetchall()}


def _store(transaction: Transaction, queue: Queue, numbered: Sequence[tuple[int, StoredEntry]]) -> None:
    """Add messages; the first one of a group that had none is its head."""
    values: list[object] = []
    heads: dict[int, int] = {}
    for seq, each in numbered:
        heads.setdefault(each.lane, seq)
        values += (seq, queue.id, each.lane, transaction.now, each.entry.group, each.entry.body)
    for lane in transaction.occupied(queue, list(heads)):
        del heads[lane]
    if heads:
        ready: list[int] = []
        for lane, seq in heads.items():
            ready += (queue.id, seq, lane)
        sql = f"INSERT INTO ready(queue, seq, lane) VALUES {rows('(?,?,?)', len(heads))}"
        transaction.database.execute(sql, ready)
    marks = rows("(?,?,?,?,?,?)", len(numbered))
    sql = f"INSERT INTO message(seq, queue, lane, sent, grp, body) VALUES {marks}"
    transaction.database.execute(sql, values)
    transaction.count(queue, len(numbered))
