"""Settler: acknowledges a message when it is done and all that it emitted is safe. Workers do not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqspipes.brokers.base import Answer, Broker, Kind
from sqspipes.messages.message import Delivery
from sqspipes.runner.batcher import Batcher, Item
from sqspipes.runner.held import Held, Origin, Parcel, State
from sqspipes.runner.leases import SHORTEST_EXTEND, Leases
from sqspipes.runner.outage import Outage
from sqspipes.support import clocks, lines

logger = lines.logger(__name__)


#: The answer for a lease that the broker extends no further.
OVER = Answer(Kind.GONE, "the broker's longest lease is over")

#: What a request settled: each payload with its answer.
Pairs = list[tuple[Any, Answer]]


class Abandoned(BaseException):
    """Raised into a call that is still running when its run has given it up: what it emits changes nothing."""


class Settler:
    """Sends, acknowledges, extends and gives back, in full requests, for all tasks of one run.

    ``settled`` is told of messages of one queue that this run no longer holds, ``refused`` of each done message one
    of whose outputs its queue will never take, ``died`` of what a batcher cannot survive.
    """

    def __init__(
        self,
        broker: Broker,
        leases: Leases,
        outage: Outage,
        *,
        settled: Callable[[Sequence[Held]], None],
        lost: Callable[[Held], None],
        refused: Callable[[Held], None],
        died: Callable[[str, BaseException], None],
    ) -> None:
        self._broker = broker
        self._leases = leases
        self._outage = outage
        self._settled = settled
        self._lost = lost
        self._refused = refused
        self._died = died
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._batchers: dict[tuple[str, str], Batcher] = {}
        self._unsafe = 0
        self._flushing = 0
        self._sent_all = False  # a stop has waited for what was to be sent
        self._closed = False

    # What executors and the dispatcher ask for

    def send(self, *parcels: Parcel) -> None:
        """Pass outputs on, in order; blocks while one of their queues is behind."""
        items: dict[str, list[Item]] = {}
        for parcel in parcels:
            item = Item(parcel, parcel.entry.group, parcel.entry.size, parcel.linger)
            items.setdefault(parcel.queue, []).append(item)
        batchers = [self._batcher("send", queue) for queue in items]
        for batcher in batchers:
            if not batcher.wait_for_room():
                raise Abandoned
        self.expect(*[parcel.origin for parcel in parcels])
        for batcher, together in zip(batchers, items.values(), strict=True):
            batcher.add_all(together)

    def expect(self, *origins: Origin) -> None:
        """Count one more output of each that is not safe yet."""
        with self._lock:
            if self._closed:
                raise Abandoned
            for origin in origins:
                origin.unsafe += 1
            self._unsafe += len(origins)

    def safe(self, origin: Origin) -> None:
        """Count an output as safe; the last one of a message that is done has it acknowledged."""
        self._safe([origin])

    def _safe(self, origins: Sequence[Origin]) -> None:
        done: list[Held] = []
        with self._lock:
            for origin in origins:
                origin.unsafe -= 1
                self._unsafe -= 1
                if not origin.unsafe and isinstance(origin, Held) and origin.done:
                    done.append(origin)
            if self._flushing:
                self._changed.notify_all()
            if self._closed:
                return
        self._acknowledge(done)

    @property
    def quiet(self) -> bool:
        """Whether all that was emitted is safe."""
        return self._unsafe == 0

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""
        with self._lock:
            self._flushing += 1
            try:
                while origin.unsafe and not (self._closed or origin.forgotten):
                    self._changed.wait()
            finally:
                self._flushing -= 1
            if self._closed or origin.forgotten:
                raise Abandoned

    def forget(self, origin: Origin) -> None:
        """Note that an output will never be safe: its message is given back at the end."""
        with self._lock:
            origin.forgotten = True
            self._changed.notify_all()

    def finish(self, *helds: Held) -> None:
        """Acknowledge messages, each one once all it emitted is safe."""
        finished: list[Held] = []
        with self._lock:
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
        self._settled([held])

    def give_back_delivery(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Give back what was never held."""
        self._batcher("release", delivery.queue).add(Item((delivery.receipt, delay)))

    def extend(self, held: Held) -> None:
        """Keep a message invisible for another lease."""
        self._batcher("extend", held.delivery.queue).add(Item(held))

    def acknowledge_delivery(self, delivery: Delivery) -> None:
        """Acknowledge what was handed on before."""
        self._batcher("clear", delivery.queue).add(Item(delivery))

    def hasten(self) -> None:
        """Let nothing linger that waits for others now."""
        for batcher in list(self._batchers.values()):
            batcher.hasten()

    def settle(self, deadline: float) -> bool:
        """Settle all that is under way and give back the rest; False if ``deadline`` came first.

        What is received all the same can be given back until the ``close``.
        """
        finished = True
        for action in ("send", "ack", "extend"):
            finished &= self._close_batchers(action, deadline)
        for held in self._leases.rest():
            self.give_back(held)
        released = [batcher.drain(deadline) for batcher in self._of("clear", "release")]
        return finished and all(released)

    def close(self, deadline: float) -> bool:
        """End, as nothing is received any more; False if ``deadline`` came before all was given back."""
        finished = self._close_batchers("clear", deadline) & self._close_batchers("release", deadline)
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        return finished

    def _close_batchers(self, action: str, deadline: float) -> bool:
        until = max(deadline, clocks.monotonic() + 0.05)
        # An answer may have more sent: a letter for what was refused.
        while any(batcher.pending for batcher in self._of(action)) and clocks.monotonic() < until:
            for batcher in self._of(action):
                batcher.drain(until)
        with self._lock:
            self._sent_all |= action == "send"
        closed = [batcher.close(max(deadline, clocks.monotonic() + 0.05)) for batcher in self._of(action)]
        return all(closed)

    def _of(self, *actions: str) -> list[Batcher]:
        return [batcher for (action, _), batcher in list(self._batchers.items()) if action in actions]

    # Requests and their answers

    def _batcher(self, action: str, queue: str) -> Batcher:
        batcher = self._batchers.get((action, queue))
        if batcher is None:
            with self._lock:
                if self._closed or (action == "send" and self._sent_all):
                    raise Abandoned
                batcher = self._batchers.get((action, queue))
                if batcher is None:
                    batcher = self._batchers[action, queue] = self._make_batcher(action, queue)
        return batcher

    def _make_batcher(self, action: str, queue: str) -> Batcher:
        requests: dict[str, tuple[Callable[[Sequence[Any]], list[Answer]], Callable[[Pairs], None]]] = {
            "send": (lambda parcels: self._broker.send(queue, [p.entry for p in parcels]), self._sent),
            "ack": (lambda helds: self._broker.ack(queue, self._receipts(helds)), self._acknowledged),
            "clear": (lambda ds: self._broker.ack(queue, [d.receipt for d in ds]), self._cleared),
            "release": (lambda pairs: self._broker.extend(queue, pairs), self._released),
            "extend": (lambda helds: self._extend(queue, helds), self._extended),
        }
        request, answered = requests[action]
        name = f"{action} {queue}"
        return Batcher(name, request, answered, self._died, self._outage, self._broker.limits)

    def _sent(self, pairs: Pairs) -> None:
        safe: list[Origin] = []
        for parcel, answer in pairs:
            if answer.kind is not Kind.OK:
                parcel.origin.refused = answer.reason
                if not isinstance(parcel.origin, Held):
                    raise RuntimeError(f"an output of a source was refused by its queue: {answer.reason}")
            elif parcel.output is not None and isinstance(parcel.origin, Held) and not parcel.origin.done:
                parcel.origin.note_safe(parcel.output)
            if parcel.arrived is not None and answer.kind is Kind.OK:
                parcel.arrived()
            else:
                safe.append(parcel.origin)
        self._safe(safe)

    def _acknowledge(self, helds: Sequence[Held]) -> None:
        items: dict[str, list[Item]] = {}
        for held in helds:
            if held.refused is not None:
                self._refused(held)
            else:
                items.setdefault(held.delivery.queue, []).append(Item(held, linger=held.linger))
        for queue, together in items.items():
            self._batcher("ack", queue).add_all(together)

    @staticmethod
    def _receipts(helds: Sequence[Held]) -> list[str]:
        """Note the receipts that are asked with: a redelivery may bring a newer one meanwhile."""
        for held in helds:
            held.asked = held.receipt
        return [held.asked for held in helds]

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
            self._settled(over)

    def _cleared(self, pairs: Pairs) -> None:
        for delivery, answer in pairs:
            if answer.kind is Kind.OK:
                self._leases.forget(delivery)

    def _released(self, pairs: Pairs) -> None:
        """Nothing follows: a lease that is gone is given back already."""

    def _extend(self, queue: str, helds: Sequence[Held]) -> list[Answer]:
        """Extend leases; one that is at the broker's longest when its turn has come is over, and not asked for."""
        asked_at = self._leases.clock.now()
        for held in helds:
            held.extending = held.receipt
        wanted = [
            (held, seconds) for held in helds if (seconds := self._leases.wanted(held)) >= SHORTEST_EXTEND
        ]
        answers: dict[Held, Answer] = {}
        if wanted:
            leases = [(held.extending, seconds) for held, seconds in wanted]
            answers = dict(zip((held for held, _ in wanted), self._broker.extend(queue, leases), strict=True))
        for held, seconds in wanted:
            if answers[held].kind is Kind.OK:
                self._leases.extended(held, asked_at, seconds)
        return [answers.get(held, OVER) for held in helds]

    def _extended(self, pairs: Pairs) -> None:
        for held, answer in pairs:
            # One that is settling may be acknowledged already; a newer receipt came with a lease of its own.
            settling = held.state in (State.SETTLING, State.OVER)
            if answer.kind is not Kind.OK and not settling and held.receipt == held.extending:
                self._lost(held)
