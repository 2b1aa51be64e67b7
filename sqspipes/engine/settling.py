"""Settling: a message is acknowledged when its call is over and all that it emitted is safe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from sqspipes.brokers.base import Answer, Kind, Limits
from sqspipes.brokers.exchange import Ack, Extend, Send
from sqspipes.calls.held import Held, Origin, Parcel, State
from sqspipes.engine.batcher import Batcher, Item, Job
from sqspipes.engine.effects import Effect, Lost, Refused, Settled
from sqspipes.engine.leases import SHORTEST_EXTEND, Leases
from sqspipes.engine.requests import Requests
from sqspipes.events import Event
from sqspipes.messages.message import Delivery
from sqspipes.support import event_log, lines

logger = lines.logger(__name__)


#: The answer for a lease that the broker extends no further.
OVER = Answer(Kind.GONE, "the broker's longest lease is over")

#: What a request settled: each payload with its answer.
Pairs: TypeAlias = list[tuple[Any, Answer]]

#: The kinds of requests, in the order in which a stop waits for them.
SENDS, ACKS, EXTENDS, CLEARS, RELEASES = "send", "ack", "extend", "clear", "release"


class Settling:
    """Sends, acknowledges, extends and gives back, in full requests, for all tasks of one run.

    ``effects`` holds what the hub of the run is to apply at the end of the turn.
    """

    def __init__(
        self,
        requests: Requests,
        leases: Leases,
        limits: Limits,
        tell: Callable[[Event], object] = event_log.log,
    ) -> None:
        self._requests = requests
        self._tell = tell
        self._loop = requests.loop
        self._leases = leases
        self._limits = limits
        self._batchers: dict[tuple[str, str], Batcher[Any]] = {}
        self._flushes: dict[Origin, list[Callable[[bool], None]]] = {}
        self._unsafe = 0
        self._is_hurried = False
        self.is_closed = False
        self.effects: deque[Effect] = deque()

    # What calls made

    def send(self, parcels: Iterable[Parcel]) -> None:
        """Pass outputs on, in order."""
        if self.is_closed:
            return
        now = self._loop.now()
        by_queue: dict[str, list[Item[Any]]] = {}
        for parcel in parcels:
            origin, queue, entry, _, linger, *_ = parcel
            origin.unsafe += 1
            self._unsafe += 1
            by_queue.setdefault(queue, []).append(Item(parcel, now + linger, entry.group, entry.size))
        for queue, items in by_queue.items():
            self._batcher(SENDS, queue).add(items)

    def expect(self, origin: Origin) -> None:
        """Count one more output that is not safe yet."""
        origin.unsafe += 1
        self._unsafe += 1

    def safe(self, origins: Iterable[Origin]) -> None:
        """Count outputs as safe; the last one of a message whose call is over has it acknowledged."""
        done: list[Held] = []
        for origin in origins:
            origin.unsafe -= 1
            self._unsafe -= 1
            if not origin.unsafe:
                if self._flushes:
                    self._end_flushes(origin, is_safe=True)
                if isinstance(origin, Held) and origin.done:
                    done.append(origin)
        if done and not self.is_closed:
            self._acknowledge(done)

    def flush(self, origin: Origin, tell: Callable[[bool], None]) -> None:
        """Have it told when all is safe that was emitted so far: True, or False if it never will be."""
        if self.is_closed or origin.forgotten or not origin.unsafe:
            tell(not (self.is_closed or origin.forgotten))
        else:
            self._flushes.setdefault(origin, []).append(tell)

    def forget(self, origin: Origin) -> None:
        """Note that an output will never be safe: its message is given back at the end."""
        origin.forgotten = True
        self._end_flushes(origin, is_safe=False)

    def _end_flushes(self, origin: Origin, *, is_safe: bool) -> None:
        for tell in self._flushes.pop(origin, ()):
            tell(is_safe)

    @property
    def all_is_safe(self) -> bool:
        """Whether all that was emitted is safe."""
        return self._unsafe == 0

    # What becomes of messages

    def finish(self, helds: Iterable[Held]) -> None:
        """Acknowledge messages, each one once all it emitted is safe."""
        finished: list[Held] = []
        for held in helds:
            held.done = True
            if not held.unsafe:
                finished.append(held)
        if finished:
            self._acknowledge(finished)

    def give_back(self, held: Held, delay: float = 0.0) -> None:
        """Let the broker hand a message out again, now or after ``delay`` seconds."""
        self._leases.drop(held)
        held.state = State.OVER
        self.give_back_delivery(held.delivery._replace(receipt=held.receipt), delay)
        self.effects.append(Settled([held]))

    def give_back_delivery(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Give back what was never held."""
        self._batcher(RELEASES, delivery.queue).add([Item((delivery.receipt, delay), 0.0)])

    def acknowledge_delivery(self, delivery: Delivery) -> None:
        """Acknowledge what was handed on before."""
        self._batcher(CLEARS, delivery.queue).add([Item(delivery, 0.0)])

    def extend_due(self) -> float | None:
        """Extend the leases that are due; return when the next one will be, on the lease clock."""
        helds, next_due = self._leases.due()
        for held in helds:
            if self._leases.wanted(held) >= SHORTEST_EXTEND:
                self._batcher(EXTENDS, held.delivery.queue).add([Item(held, 0.0)])
            else:  # the broker's longest lease is over
                self.effects.append(Lost(held))
        return next_due

    # Stopping

    def hasten(self) -> None:
        """Let nothing linger that waits for others now."""
        for batcher in self._batchers.values():
            batcher.hasten()

    def hurry(self) -> None:
        """Let nothing linger or rest any more."""
        self._is_hurried = True
        for batcher in tuple(self._batchers.values()):
            batcher.hurry()

    def pending(self, *kinds: str) -> bool:
        """Say whether something of these kinds has no final answer."""
        return any(batcher.is_pending for (kind, _), batcher in self._batchers.items() if kind in kinds)

    def give_back_the_rest(self) -> None:
        """Give back all that is held."""
        for held in self._leases.rest():
            self.give_back(held)

    def close(self) -> None:
        """End the flushes that wait; nothing is sent or acknowledged any more."""
        self.is_closed = True
        for origin in tuple(self._flushes):
            self._end_flushes(origin, is_safe=False)

    # Requests and their answers

    def _batcher(self, kind: str, queue: str) -> Batcher[Any]:
        batcher = self._batchers.get((kind, queue))
        if batcher is None:
            batcher = self._batchers[kind, queue] = Batcher(
                self._job(kind, queue), self._requests, self._limits
            )
            if self._is_hurried:
                batcher.hurry()
        return batcher

    def _job(self, kind: str, queue: str) -> Job[Any]:
        name = f"{kind} {queue}"
        match kind:
            case "send":
                return Job(name, lambda parcels: Send(queue, [p.entry for p in parcels]), self._sent)
            case "ack":
                return Job(name, lambda helds: Ack(queue, _receipts(helds)), self._acknowledged)
            case "clear":
                return Job(name, lambda ds: Ack(queue, [d.receipt for d in ds]), self._cleared)
            case "release":
                # A lease that is gone is given back already: whatever the answer is, nothing follows.
                return Job(name, lambda pairs: Extend(queue, pairs), lambda pairs: None)
            case _:
                return Job(name, partial(self._extend, queue), self._extended, self._unfit_to_extend)

    def _sent(self, pairs: Pairs) -> None:
        safe: list[Origin] = []
        for parcel, answer in pairs:
            if parcel.freed is not None:
                parcel.freed()
            if answer.kind is not Kind.OK:
                parcel.origin.refused = answer.reason
                if not isinstance(parcel.origin, Held):
                    raise RuntimeError(f"an output of a source was refused by its queue: {answer.reason}")
            elif parcel.output is not None and isinstance(parcel.origin, Held) and not parcel.origin.done:
                parcel.origin.note_safe(parcel.output)
            if parcel.event is not None and answer.kind is Kind.OK:
                self._tell(parcel.event)
            if parcel.arrived is not None and answer.kind is Kind.OK:
                parcel.arrived()
            else:
                safe.append(parcel.origin)
        self.safe(safe)

    def _acknowledge(self, helds: Iterable[Held]) -> None:
        now = self._loop.now()
        by_queue: dict[str, list[Item[Held]]] = {}
        for held in helds:
            if held.refused is not None:
                self.effects.append(Refused(held))
                continue
            by_queue.setdefault(held.delivery.queue, []).append(Item(held, now + held.linger))
        for queue, items in by_queue.items():
            self._batcher(ACKS, queue).add(items)

    def _acknowledged(self, pairs: Pairs) -> None:
        over: list[Held] = []
        for held, answer in pairs:
            if answer.kind is not Kind.OK:
                if not self._leases.remember(held, held.asked):
                    self._acknowledge([held])
                    continue
                logger.warning(
                    "%s was handed on, but its lease was lost: it is acknowledged when it returns",
                    held.message.id,
                )
            held.state = State.OVER
            over.append(held)
        self._leases.drop(*over)
        if over:
            self.effects.append(Settled(over))

    def _cleared(self, pairs: Pairs) -> None:
        for delivery, answer in pairs:
            if answer.kind is Kind.OK:
                self._leases.forget(delivery)

    def _unfit_to_extend(self, held: Held) -> Answer | None:
        return OVER if self._leases.wanted(held) < SHORTEST_EXTEND else None

    def _extend(self, queue: str, helds: Sequence[Held]) -> Extend:
        asked_at = self._leases.clock.now()
        leases = []
        for held in helds:
            seconds = max(SHORTEST_EXTEND, self._leases.wanted(held))
            held.extending, held.extend_asked = held.receipt, (asked_at, seconds)
            leases.append((held.receipt, seconds))
        return Extend(queue, leases)

    def _extended(self, pairs: Pairs) -> None:
        for held, answer in pairs:
            # One that is settling may be acknowledged already; a newer receipt came with a lease of its own.
            is_settling = held.state in (State.SETTLING, State.OVER)
            if answer.kind is Kind.OK:
                self._leases.extended(held, *held.extend_asked)
            elif not is_settling and held.receipt == held.extending:
                self.effects.append(Lost(held))


def _receipts(helds: Sequence[Held]) -> list[str]:
    """Note the receipts that are asked with: a redelivery may bring a newer one meanwhile."""
    for held in helds:
        held.asked = held.receipt
    return [held.asked for held in helds]
