"""The embedded broker: queues in one SQLite file, for all processes of a machine, or in memory for one."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from sqspipes.brokers.base import OK, Answer, Broker, Depth, Entry, Limits, QueueSpec
from sqspipes.brokers.exchange import Exchange, ExchangeLoop
from sqspipes.brokers.rules import LEASE_LOST, check_count, check_seconds, refusal
from sqspipes.brokers.sqlite import leases as flight
from sqspipes.brokers.sqlite import queues, receiving, sending
from sqspipes.brokers.sqlite.bell import Bell
from sqspipes.brokers.sqlite.exchange import MemoryExchange
from sqspipes.brokers.sqlite.fork import survive_forks
from sqspipes.brokers.sqlite.store import Store
from sqspipes.brokers.sqlite.url import parse
from sqspipes.errors import BrokerClosedError, BrokerError
from sqspipes.messages.message import Delivery
from sqspipes.support import clocks


class SqliteBroker(Broker):
    """Queues in a SQLite file (``sqlite:///path.db``), or in memory (``memory://``).

    The file is opened at the first use, and anew in a forked child; a child's ``memory://`` broker is empty.
    A request whose bodies have more than ``request_bytes`` in all raises a BrokerError and stores nothing.
    """

    limits = Limits(
        entries=flight.MOST_ENTRIES, exact=True, clean_interrupt=True, linger=0.0, requests_in_flight=1
    )

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._place = parse(url)
        self.url = self._place.url
        self._clock = clock
        self._closed = False
        self._store: Store | None = None
        self._known: set[str] = set()
        self._opening = threading.Lock()
        self._bell = self._new_bell()
        survive_forks(self)

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Make the queues that are missing; with ``create=False`` demand them all."""
        store = self._opened()
        if not create:
            return store.read(lambda t: queues.demand(t, [spec.name for spec in specs]))
        store.write(lambda t: queues.declare(t, specs))
        return self._clean(store)  # What a purge left behind that was killed.

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages, in order; an OK entry survives a crash of this process."""
        check_count("entries", len(entries), self.limits.entries)
        store = self._opened()
        answers = [refusal(entry) or OK for entry in entries]
        pairs = zip(entries, answers, strict=True)
        parcels = [sending.parcel(entry) for entry, answer in pairs if answer is OK]
        size = sum(parcel.entry.size for parcel in parcels)
        if size > self.limits.request_bytes:
            raise BrokerError(f"the request has {size:,} bytes, allowed are {self.limits.request_bytes:,}")
        store.write(lambda t: sending.send(t, queue, parcels), (size, len(parcels)))
        return answers

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take up to ``count`` messages for ``lease`` seconds, waiting up to ``wait`` seconds for the first.

        No answer can get lost on its way, so ``attempt`` is not needed.
        """
        check_count("count", count, self.limits.entries)
        check_seconds("wait", wait, self.limits.longest_wait)
        check_seconds("lease", lease, self.limits.longest_lease)
        interrupts = self._bell.interrupts
        deadline = clocks.monotonic() + wait
        taken = self._take(queue, count, lease)
        if taken or wait <= 0:
            return taken
        with self._bell.listening(queue, interrupts) as waiter:
            while not taken:
                # Whoever comes too late to hear the bell finds the message here.
                if self._due(queue) <= self._clock():
                    taken = self._take(queue, count, lease)
                elif not self._bell.wait(waiter, deadline):
                    break
        return taken

    def exchange(self, loop: ExchangeLoop, name: str) -> Exchange | None:
        """Return an exchange over a broker in memory; None where requests may block: a file, or a subclass."""
        if self._place.path is not None or type(self) is not SqliteBroker:
            return None
        return MemoryExchange(self, self._bell, lambda queue: self._due(queue) <= self._clock(), loop)

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Delete delivered messages for good."""
        check_count("receipts", len(receipts), self.limits.entries)
        done = self._opened().write(
            lambda t: flight.ack(t, queue, [_mark(t.file, receipt) for receipt in receipts])
        )
        return [OK if each else LEASE_LOST for each in done]

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Set the seconds, counted from now, that deliveries stay invisible; 0 gives one back at once."""
        check_count("leases", len(leases), self.limits.entries)
        for _, seconds in leases:
            check_seconds("lease", seconds, self.limits.longest_lease)
        done = self._opened().write(
            lambda t: flight.extend(t, queue, [(_mark(t.file, receipt), end) for receipt, end in leases])
        )
        return [OK if each else LEASE_LOST for each in done]

    def depth(self, queue: str) -> Depth:
        """Count a queue's messages."""
        return self._opened().read(lambda t: queues.depth(t, queue))

    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that this queue takes."""
        if queue not in self._known:
            self._opened().read(lambda t: t.found(queue))
            self._known.add(queue)
        return self.limits.message_bytes

    def names(self, prefix: str) -> list[str]:
        """List the queues whose names begin with ``prefix``."""
        return self._opened().read(lambda t: queues.listed(t, prefix))

    def queue_url(self, queue: str) -> str:
        """Return the address of a queue."""
        self._opened().read(lambda t: t.found(queue))
        return f"{self._place.address}#{queue}"

    def tags(self, queue: str) -> dict[str, str]:
        """Return a queue's tags."""
        return self._opened().read(lambda t: queues.tags(t, queue))

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a queue; None removes one."""
        self._opened().write(lambda t: queues.tag(t, queue, tags))

    def purge(self, queue: str) -> None:
        """Delete every message of a queue, at once for all; the file is cleaned up before this returns."""
        store = self._opened()
        store.write(lambda t: queues.purge(t, queue))
        self._clean(store)

    def delete(self, queue: str) -> None:
        """Delete a queue with all it holds; one that is not there is no error."""
        store = self._opened()
        store.write(lambda t: queues.delete(t, queue))
        self._known.discard(queue)
        self._clean(store)

    def interrupt(self) -> None:
        """End the receives that are open now; what they took already, they still return."""
        self._bell.interrupt()

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        with self._opening:
            self._closed = True
            self._bell.interrupt()
            if self._store is not None:
                self._store.close()
                self._store = None

    # For fork.py

    def hold(self) -> bool:
        """Before a fork: let nothing be under way, and say whether that succeeded."""
        if not self._opening.acquire(timeout=10):
            return False
        if self._store is None or self._store.hold():
            return True
        self._opening.release()
        return False

    def resume(self) -> None:
        """After a fork, in the parent: go on."""
        if self._store is not None:
            self._store.resume()
        self._opening.release()

    def renew(self) -> None:
        """After a fork, in the child: leave what is the parent's."""
        store, self._store = self._store, None
        self._opening = threading.Lock()
        self._bell = self._new_bell()
        if store is not None:
            store.abandon()

    # Inside

    def _opened(self) -> Store:
        store = self._store
        if store is not None and store.process == os.getpid():
            return store
        with self._opening:
            if self._closed:
                raise BrokerClosedError(f"{self.url} was closed")
            if self._store is None or self._store.process != os.getpid():
                self._store = Store(self._place, self._clock, self._bell.ring)
            return self._store

    def _new_bell(self) -> Bell:
        return Bell(self._version, self._due, self._clock)

    def _version(self) -> tuple[int, int]:
        store = self._opened()
        return store.commits, store.read(queues.version)

    def _due(self, queue: str) -> float:
        return self._opened().read(lambda t: queues.due(t, queue))

    def _take(self, queue: str, count: int, lease: float) -> list[Delivery]:
        file, rows = self._opened().write(lambda t: (t.file, receiving.receive(t, queue, count, lease)))
        return [
            Delivery(
                queue=queue,
                id=f"{file}-{row.seq}-{row.sent}",  # a file put back from a copy gives its numbers again
                receipt=f"{file}-{row.seq}-{row.receives + 1}",
                receives=row.receives + 1,
                body=row.body,
                group=row.group,
                sent=row.sent / 1000,
            )
            for row in rows
        ]

    def _clean(self, store: Store) -> None:
        while store.write(queues.clean):
            pass


def _mark(file: str, receipt: str) -> flight.Mark:
    """Read a receipt; None for one that is not of this file."""
    parts = receipt.split("-")
    if len(parts) != 3 or parts[0] != file or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return int(parts[1]), int(parts[2])
