"""The model: the FIFO rules of the port, with time passed in. It follows a broker's answers and refuses wrong ones.

Where FIFO leaves a choice (which groups a receive takes, when a dead letter moves) each legal answer is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from sqspipes.brokers.base import Answer, Depth, Entry, Kind
from sqspipes.defaults import DEDUPLICATION_SECONDS
from sqspipes.messages.message import Delivery
from tests.contract.differences import Leeway


class IllegalAnswerError(AssertionError):
    """A broker gave an answer that the rules do not allow."""


@dataclass(slots=True, eq=False)
class Stored:
    """A message; ``body`` is its name, ``end`` the time at which its lease ends."""

    queue: str
    group: str
    body: str
    receives: int = 0
    id: str = ""
    receipt: str = ""
    end: float = -inf
    letter: bool = False
    deleted: bool = False

    def held(self, now: float) -> bool:
        return now < self.end


class Model:
    """Two queues, ``work`` and its dead-letter queue ``dead``, as the rules want them."""

    def __init__(self, work: str, dead: str, max_receives: int, leeway: frozenset[Leeway]) -> None:
        self.work, self.dead = work, dead
        self.messages: list[Stored] = []
        #: A broker that was refused an answer is not followed any further.
        self.refused = False
        self._max_receives = max_receives
        self._leeway = leeway
        self._receipts: dict[str, Stored] = {}
        self._sent: dict[tuple[str, str, str], float] = {}

    def sent(self, queue: str, entries: Sequence[Entry], answers: Sequence[Answer], now: float) -> None:
        """Follow a send; an entry without a group is for no queue."""
        self._demand_kinds([{Kind.OK if entry.group else Kind.NEVER} for entry in entries], answers)
        for entry in entries:
            key = (queue, entry.group, entry.id)
            if entry.group and now >= self._sent.get(key, -inf) + DEDUPLICATION_SECONDS:
                self._sent[key] = now
                self.messages.append(Stored(queue, entry.group, entry.body))

    def received(
        self, queue: str, count: int, lease: float, deliveries: Sequence[Delivery], now: float
    ) -> None:
        """Follow a receive: each group from its first message on, and all there is unless ``count`` is less."""
        taken = [self._named(delivery.body) for delivery in deliveries]
        for message in taken:
            if queue == self.dead and self._doomed(message, now):
                self._bury(message)
        there = [message for message in self.messages if message.queue == queue]
        busy = {self._lane(message) for message in there if message.held(now)}
        free = [m for m in there if self._lane(m) not in busy and not self._doomed(m, now)]
        self._demand(len(taken) <= count, f"{len(taken)} messages came, {count} were asked for")
        for message in taken:
            self._demand(message in free, f"{message} came, free are {_names(free)}")
        for lane in {self._lane(message) for message in taken}:
            came, due = self._ordered(lane, taken), self._ordered(lane, free)
            self._demand(came == due[: len(came)], f"{came} came of {lane!r}, due were {due}")
        missed = [message for message in free if message not in taken]
        self._demand(len(taken) == count or not missed, f"{_names(missed)} did not come")
        for message, delivery in zip(taken, deliveries, strict=True):
            self._follow(message, delivery, now + lease)
        if len(taken) < count:  # It went through all of the queue.
            for message in there:
                if self._lane(message) not in busy and self._doomed(message, now):
                    self._bury(message)

    def acked(self, queue: str, receipts: Sequence[str], answers: Sequence[Answer], now: float) -> None:
        """Follow an acknowledgement; what was acknowledged before may be so again."""
        for receipt, answer in zip(receipts, answers, strict=True):
            message = self._receipts.get(receipt)
            again = {Kind.OK} if message is not None and message.deleted else set()
            held = self._held_by(queue, receipt, answer, again, now)
            if held is not None:
                held.deleted = True
                self.messages.remove(held)

    def extended(
        self, queue: str, leases: Sequence[tuple[str, float]], answers: Sequence[Answer], now: float
    ) -> None:
        """Follow a change of leases."""
        for (receipt, seconds), answer in zip(leases, answers, strict=True):
            held = self._held_by(queue, receipt, answer, set(), now)
            if held is not None:
                held.end = now + seconds

    def counted(self, depths: Mapping[str, Depth], now: float) -> None:
        """Follow a look at the depths: only where a dead letter is counted is left open."""
        for queue, depth in depths.items():
            there = [message for message in self.messages if message.queue == queue]
            held = sum(message.held(now) for message in there)
            self._demand(depth.in_flight == held, f"{depth} of {queue}, in flight are {held}")
            sure = sum(not message.held(now) and not self._doomed(message, now) for message in there)
            self._demand(depth.waiting >= sure, f"{depth} of {queue}, at least {sure} wait")
        total = sum(depth.waiting + depth.in_flight for depth in depths.values())
        self._demand(total == len(self.messages), f"{depths}, there are {len(self.messages)} in all")

    def held(self, queue: str, now: float) -> list[str]:
        """Return the receipts that hold a message of a queue."""
        return [m.receipt for m in self.messages if m.queue == queue and m.held(now)]

    def _held_by(
        self, queue: str, receipt: str, answer: Answer, further: set[Kind], now: float
    ) -> Stored | None:
        """Check the answer to a receipt, and return the message that it holds if the answer is OK."""
        message = self._receipts.get(receipt)
        if message is None or message.deleted or (message.queue, message.receipt) != (queue, receipt):
            self._demand_kinds([{Kind.GONE} | further], [answer])
            return None
        if message.held(now):
            self._demand_kinds([{Kind.OK}], [answer])
        elif "ended leases are good" not in self._leeway:
            self._demand_kinds([{Kind.GONE}], [answer])
        elif not self._doomed(message, now):
            self._demand_kinds([{Kind.OK}], [answer])
        elif answer.kind is Kind.GONE:
            self._bury(message)
        return message if answer.kind is Kind.OK else None

    def _follow(self, message: Stored, delivery: Delivery, end: float) -> None:
        """Check a delivery of a message and put the message in flight."""
        self._demand(delivery.receipt not in self._receipts, f"{delivery} has an old receipt")
        expected = (message.queue, message.group, message.receives + 1, message.id or delivery.id)
        got = (delivery.queue, delivery.group, delivery.receives, delivery.id)
        self._demand(got == expected, f"{got} came, due was {expected}")
        message.receives, message.id, message.receipt = delivery.receives, delivery.id, delivery.receipt
        message.end = end
        self._receipts[delivery.receipt] = message

    def _doomed(self, message: Stored, now: float) -> bool:
        """Whether a message was received as often as allowed: it may be a dead letter by now."""
        often = message.receives >= self._max_receives
        return message.queue == self.work and often and not message.held(now)

    def _bury(self, message: Stored) -> None:
        message.queue, message.letter = self.dead, True
        message.id = message.receipt = ""
        if "letters keep their count" not in self._leeway:
            message.receives = 0

    def _lane(self, message: Stored) -> str:
        alone = message.letter and "letters are groups of their own" in self._leeway
        return message.body if alone else message.group

    def _ordered(self, lane: str, messages: Sequence[Stored]) -> list[str]:
        """Name the messages of a group that have an order: which letter moved first nobody saw."""
        return [m.body for m in messages if self._lane(m) == lane and not m.letter]

    def _named(self, body: str) -> Stored:
        found = [message for message in self.messages if message.body == body]
        self._demand(bool(found), f"{body!r} came, which is not there")
        return found[0]

    def _demand_kinds(self, allowed: Sequence[set[Kind]], answers: Sequence[Answer]) -> None:
        got = [answer.kind for answer in answers]
        self._demand(len(got) == len(allowed), f"{len(allowed)} entries got {len(got)} answers")
        legal = all(kind in kinds for kind, kinds in zip(got, allowed, strict=True))
        self._demand(legal, f"the answers are {answers}, allowed are {allowed}")

    def _demand(self, condition: bool, text: str) -> None:
        if not condition:
            self.refused = True
            raise IllegalAnswerError(text)


def _names(messages: Sequence[Stored]) -> list[str]:
    return [message.body for message in messages]
