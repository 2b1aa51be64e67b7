"""Settling: a message is acknowledged when its call is over and all outputs of the call are safe."""

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
from sqspipes.support import lines

logger = lines.logger(__name__)


#: Our own answer to an extend for which nothing of the broker's longest lease is left.
OVER = Answer(Kind.GONE, "the broker's longest lease is over")

#: The payloads of an answered request, each with its answer.
Pairs: TypeAlias = list[tuple[Any, Answer]]

#: The kinds of requests, in the order in which a stop waits for them.
SENDS, ACKS, EXTENDS, CLEARS, RELEASES = "send", "ack", "extend", "clear", "release"


class Settling:
    """Sends, acknowledges, extends and gives back for all tasks of one run, in requests that are as full as possible.

    ``effects`` are applied by the hub of the run at the end of the turn.
    """

    def __init__(
        self,
        requests: Requests,
        leases: Leases,
        limits: Limits,
        tell: Callable[[Event], object],
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
        """Send outputs to their queues, in order."""
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
        """Count an output that is not safe yet and goes to no queue."""
        origin.unsafe += 1
        self._unsafe += 1

    def safe(self, origins: Iterable[Origin]) -> None:
        """Count one output of each origin as safe; acknowledge messages whose calls and outputs are all done."""
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
        """Call ``tell`` once every output of an origin is safe: with True, or with False if that will never be.

        An output that its queue has refused does not make it False: ``origin.refused`` is the reason then.
        """
        if self.is_closed or origin.forgotten or not origin.unsafe:
            tell(not (self.is_closed or origin.forgotten))
        else:
            self._flushes.setdefault(origin, []).append(tell)

    def forget(self, origin: Origin) -> None:
        """Note that an output will never be safe: its message stays held, and a stop gives it back."""
        origin.forgotten = True
        self._end_flushes(origin, is_safe=False)

    def _end_flushes(self, origin: Origin, *, is_safe: bool) -> None:
        for tell in self._flushes.pop(origin, ()):
            tell(is_safe)

    @property
    def all_is_safe(self) -> bool:
        """Whether all outputs of the run are safe."""
        return self._unsafe == 0

    # What becomes of messages

    def finish(self, helds: Iterable[Held]) -> None:
        """Note that the calls of messages are over; acknowledge each message once all its outputs are safe."""
        finished: list[Held] = []
        for held in helds:
            held.done = True
            if not held.unsafe:
                finished.append(held)
        if finished:
            self._acknowledge(finished)

    def give_back(self, held: Held, delay: float = 0.0) -> None:
        """Give a held message back: the broker hands it out again, now or after ``delay`` seconds."""
        self._leases.drop(held)
        held.state = State.OVER
        self.give_back_delivery(held.delivery._replace(receipt=held.receipt), delay)
        self.effects.append(Settled([held]))

    def give_back_delivery(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Give back a delivery that is not held, now or after ``delay`` seconds."""
        self._batcher(RELEASES, delivery.queue).add([Item((delivery.receipt, delay), 0.0)])

    def acknowledge_delivery(self, delivery: Delivery) -> None:
        """Acknowledge a message that has come back although its outputs are safe already."""
        self._batcher(CLEARS, delivery.queue).add([Item(delivery, 0.0)])

    def extend_due(self) -> float | None:
        """Extend the leases that are due; return when the next lease is due, on the lease clock, or None."""
        helds, next_due = self._leases.due()
        for held in helds:
            if self._leases.wanted(held) >= SHORTEST_EXTEND:
                self._batcher(EXTENDS, held.delivery.queue).add([Item(held, 0.0)])
            else:  # Nothing is left of the broker's longest lease.
                self.effects.append(Lost(held))
        return next_due

    # Stopping

    def hasten(self) -> None:
        """Let no entry that waits now linger any longer."""
        for batcher in self._batchers.values():
            batcher.hasten()

    def hurry(self) -> None:
        """Let no entry linger from now on, and ask again at once for the entries that rest after a failure."""
        self._is_hurried = True
        for batcher in tuple(self._batchers.values()):
            batcher.hurry()

    def pending(self, *kinds: str) -> bool:
        """Say whether an entry of these kinds may still get its final answer."""
        return any(batcher.is_pending for (kind, _), batcher in self._batchers.items() if kind in kinds)

    def give_back_the_rest(self) -> None:
        """Give back every message that is still held."""
        for held in self._leases.rest():
            self.give_back(held)

    def close(self) -> None:
        """End the flushes that wait. After that, ``send`` sends nothing and ``safe`` acknowledges nothing."""
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
            if self._is_hurried:  # A stop may be the first to ask for this kind.
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
                # Nothing follows from the answer: a message whose lease is gone is back in its queue anyway.
                return Job(name, lambda pairs: Extend(queue, pairs), lambda pairs: None)
            case _:
                return Job(name, partial(self._extend, queue), self._extended, self._unfit_to_extend)

    def _sent(self, pairs: Pairs) -> None:
        safe: list[Origin] = []
        for parcel, answer in pairs:
            if parcel.freed is not None:
                parcel.freed()
            if answer.kind is not Kind.OK:
                # It is counted as safe below all the same: else its message would never get to ``_acknowledge``,
                # which makes a ``Refused`` effect of it.
                parcel.origin.refused = answer.reason
                if not isinstance(parcel.origin, Held):
                    raise RuntimeError(f"an output of a source was refused by its queue: {answer.reason}")
            elif parcel.output is not None and isinstance(parcel.origin, Held) and not parcel.origin.done:
                # The next attempt, if there is one, does not send this output again.
                parcel.origin.note_safe(parcel.output)
            if parcel.event is not None and answer.kind is Kind.OK:
                self._tell(parcel.event)
            if parcel.arrived is not None and answer.kind is Kind.OK:
                parcel.arrived()  # Has the output counted as safe: at once, or when a reader is done with it.
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
                    # The message has come back meanwhile: its newer receipt can acknowledge it.
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
            # A request that is repeated may be late: 0 seconds would give the message back.
            seconds = max(SHORTEST_EXTEND, self._leases.wanted(held))
            held.extending, held.extend_asked = held.receipt, (asked_at, seconds)
            leases.append((held.receipt, seconds))
        return Extend(queue, leases)

    def _extended(self, pairs: Pairs) -> None:
        for held, answer in pairs:
            # No lease is lost if the message may be acknowledged by now, or has come back with a newer receipt.
            is_settling = held.state in (State.SETTLING, State.OVER)
            if answer.kind is Kind.OK:
                self._leases.extended(held, *held.extend_asked)
            elif not is_settling and held.receipt == held.extending:
                self.effects.append(Lost(held))


def _receipts(helds: Sequence[Held]) -> list[str]:
    """Return the receipts of messages, and note them: a redelivery may bring newer ones before the answer."""
    for held in helds:
        held.asked = held.receipt
    return [held.asked for held in helds]
