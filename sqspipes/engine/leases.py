"""Leases: one table of the messages that this run holds, with the end of each lease."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sqspipes.calls.held import Held
from sqspipes.messages.message import Delivery
from sqspipes.support.clocks import LeaseClock

#: Seconds for which a message is remembered if its outputs are safe but its acknowledgement came too late. The next
#: queue knows the ids of the outputs for no longer either: after that it would store outputs of a second call, too.
REMEMBERED_SECONDS = 300.0

#: The shortest extend in seconds: brokers count in whole seconds, and 0 seconds would give the message back.
SHORTEST_EXTEND = 1.0

#: A time in the heap is stale when its lease was dropped or extended. Stale times are passed over when they are due;
#: the heap is made anew when it has more keys than this number and twice the number of held messages together.
MOST_STALE = 1_000


class Leases:
    """The messages that are held, by queue and broker's message id: so a redelivered message is never called twice.

    ``longest`` is the broker's longest lease in seconds. ``tick`` is called with the time at which a lease is to be
    extended, on the lease clock.
    """

    def __init__(self, clock: LeaseClock, longest: float, tick: Callable[[float], None]) -> None:
        self.clock = clock
        self._longest = longest
        self._tick = tick
        self._held: dict[tuple[str, str], Held] = {}
        self._handed_on: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._due: list[
            tuple[float, int, list[tuple[str, str]]]
        ] = []  # A heap: times, and the keys of the messages to extend then.
        self._keys = 0  # How many keys the heap has.
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._held)

    def renew(self, delivery: Delivery, received: float, lease: float) -> bool:
        """Say whether the message of a delivery is held here; if so, take the new receipt and the new lease."""
        held = self._held.get((delivery.queue, delivery.id))
        if held is None:
            return False
        held.receipt = delivery.receipt
        held.lost = False
        self._prolong(held, received, lease)
        return True

    def was_handed_on(self, delivery: Delivery) -> bool:
        """Say whether the outputs of a delivery's message are safe already, so that it is only to be acknowledged."""
        if not self._handed_on:
            return False
        until = self._handed_on.get((delivery.queue, delivery.id))
        return until is not None and until > self.clock.now()

    def hold(self, helds: Sequence[Held]) -> None:
        """Begin to keep up the leases of the messages of one receive."""
        if not helds:
            return
        self._held.update([(held.key, held) for held in helds])
        # Messages of one receive have the same lease, so one time in the heap is enough.
        self._push(helds[0].extend_at, [held.key for held in helds])
        self._tick(helds[0].extend_at)

    def drop(self, *helds: Held) -> None:
        """Stop keeping up the leases of messages: they were acknowledged, given back or given up."""
        for held in helds:
            if self._held.get(held.key) is held:
                del self._held[held.key]

    def remember(self, held: Held, receipt: str) -> bool:
        """Stop keeping up the lease of a message that could not be acknowledged, and remember the message.

        Return False, and do nothing, if the message has a newer receipt than ``receipt``: it has come back already.
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
        """Forget a remembered message: it is acknowledged now."""
        self._handed_on.pop((delivery.queue, delivery.id), None)

    def rest(self) -> list[Held]:
        """Return all messages that are held."""
        return list(self._held.values())

    def alive(self, held: Held, now: float | None = None) -> bool:
        """Say whether the lease of a message still lasts, as far as this process can know."""
        return not held.lost and held.expires > (self.clock.now() if now is None else now)

    def due(self) -> tuple[list[Held], float | None]:
        """Return the messages whose leases are to be extended now, and when the next lease is due, or None."""
        now = self.clock.now()
        found: list[Held] = []
        while self._due and self._due[0][0] <= now:
            at, _, keys = heapq.heappop(self._due)
            self._keys -= len(keys)
            # A message that is not held any more, or whose lease was extended meanwhile, is passed over.
            together = [self._held[key] for key in keys if key in self._held]
            found += [held for held in together if held.extend_at == at]
        return found, self._due[0][0] if self._due else None

    def wanted(self, held: Held) -> float:
        """Return the seconds that a lease is to last from now: not beyond the end of the broker's longest lease.

        The broker's longest lease counts from the receive, with all extensions. When it is over, this is negative.
        """
        left = self._longest - (self.clock.now() - held.received)
        return min(held.lease, left)

    def extended(self, held: Held, asked_at: float, seconds: float) -> None:
        """Note that the broker has extended a lease, counted from ``asked_at``, when the request was made."""
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
