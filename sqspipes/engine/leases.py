"""Leases: one table of what this run holds at the broker, and until when."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sqspipes.calls.held import Held
from sqspipes.messages.message import Delivery
from sqspipes.support.clocks import LeaseClock

#: Seconds for which a message that was handed on, but whose acknowledgement came too late, is remembered:
#: after that its second hand-off would not be recognised by the queue either.
REMEMBERED_SECONDS = 300.0

#: Seconds of an extend that is worth asking for: brokers count in whole ones. None would give the message back.
SHORTEST_EXTEND = 1.0

#: Times of leases that have ended, or were prolonged meanwhile, which may wait to be passed over.
MOST_STALE = 1_000


class Leases:
    """What is held, keyed by queue and broker's message id, so that a redelivery is never a second call.

    ``longest`` is the broker's longest lease, ``tick`` is told when each lease is to be extended.
    """

    def __init__(self, clock: LeaseClock, longest: float, tick: Callable[[float], None]) -> None:
        self.clock = clock
        self._longest = longest
        self._tick = tick
        self._held: dict[tuple[str, str], Held] = {}
        self._handed_on: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._due: list[
            tuple[float, int, list[tuple[str, str]]]
        ] = []  # times, and what is to be extended then
        self._keys = 0  # in there
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._held)

    def renew(self, delivery: Delivery, received: float, lease: float) -> bool:
        """Say whether a delivery is of something held here; if so, its receipt replaces the old one."""
        held = self._held.get((delivery.queue, delivery.id))
        if held is None:
            return False
        held.receipt = delivery.receipt
        held.lost = False
        self._prolong(held, received, lease)
        return True

    def was_handed_on(self, delivery: Delivery) -> bool:
        """Say whether a delivery is of something that has been handed on here, and only wants acknowledging."""
        if not self._handed_on:
            return False
        until = self._handed_on.get((delivery.queue, delivery.id))
        return until is not None and until > self.clock.now()

    def hold(self, helds: Sequence[Held]) -> None:
        """Begin to keep messages of one receive invisible."""
        if not helds:
            return
        self._held.update([(held.key, held) for held in helds])
        # They came together, so they have one time.
        self._push(helds[0].extend_at, [held.key for held in helds])
        self._tick(helds[0].extend_at)

    def drop(self, *helds: Held) -> None:
        """Stop to keep messages: they were acknowledged, given back or lost."""
        for held in helds:
            if self._held.get(held.key) is held:
                del self._held[held.key]

    def remember(self, held: Held, receipt: str) -> bool:
        """Stop to keep a message that was handed on but could not be acknowledged; know it when it returns.

        False if it has returned already: it has a newer receipt than this one.
        """
        now = self.clock.now()
        if held.receipt != receipt:
            return False
        self.drop(held)
        self._handed_on[held.key] = now + REMEMBERED_SECONDS
        while self._handed_on and next(iter(self._handed_on.values())) <= now:
            self._handed_on.popitem(last=False)
        return True

    def forget(self, delivery: Delivery) -> None:
        """Forget what was handed on, as it is acknowledged now."""
        self._handed_on.pop((delivery.queue, delivery.id), None)

    def rest(self) -> list[Held]:
        """Return all that is held."""
        return list(self._held.values())

    def alive(self, held: Held, now: float | None = None) -> bool:
        """Say whether a message is still invisible to others, as far as this process can know."""
        return not held.lost and held.expires > (self.clock.now() if now is None else now)

    def due(self) -> tuple[list[Held], float | None]:
        """Return the leases to extend now, and when the next one is due."""
        now = self.clock.now()
        found: list[Held] = []
        while self._due and self._due[0][0] <= now:
            at, _, keys = heapq.heappop(self._due)
            self._keys -= len(keys)
            together = [self._held[key] for key in keys if key in self._held]
            found += [held for held in together if held.extend_at == at]
        return found, self._due[0][0] if self._due else None

    def wanted(self, held: Held) -> float:
        """Return the seconds to extend a lease by: none past the broker's longest."""
        left = self._longest - (self.clock.now() - held.received)
        return min(held.lease, left)

    def extended(self, held: Held, asked_at: float, seconds: float) -> None:
        """Note that the broker extended a lease when asked at ``asked_at``."""
        if self._held.get(held.key) is held:
            self._prolong(held, asked_at, seconds)

    def _prolong(self, held: Held, start: float, seconds: float) -> None:
        held.expires = start + seconds
        held.extend_at = start + seconds / 2
        self._push(held.extend_at, [held.key])
        self._tick(held.extend_at)

    def _push(self, at: float, keys: list[tuple[str, str]]) -> None:
        heapq.heappush(self._due, (at, next(self._serial), keys))
        self._keys += len(keys)
        if self._keys > MOST_STALE + 2 * len(self._held):
            self._due = [(held.extend_at, next(self._serial), [key]) for key, held in self._held.items()]
            self._keys = len(self._due)
            heapq.heapify(self._due)
