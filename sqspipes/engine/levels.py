"""Levels: the queues of one task, how busy each is, and the receives that are open there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.brokers.base import Limits
from sqspipes.engine.pace import Arrivals
from sqspipes.engine.requests import PatientRequest
from sqspipes.messages.message import Delivery

#: Answers of one message that follow one with a suspect.
SINGLY_AFTER_SUSPECT = 10

#: Full answers in a row after which more waits in a queue than came while nobody asked.
BACKLOG_AFTER = 2

#: Receives of a queue in flight ask for no more than what came in so many seconds, and the first one's worth: they
#: keep room from lower levels.
SECONDS_ASKED_FOR = 0.25


class Received(NamedTuple):
    """An answered receive.

    ``received`` is when the lease of its messages began at the latest, on the lease clock.
    """

    level: Level
    deliveries: Sequence[Delivery]
    received: float


class OpenReceive:
    """A receive in flight. The receive at place 0 is the one that polls."""

    __slots__ = ("count", "first", "is_poll", "place", "request", "reserved", "unblocked")

    def __init__(
        self, place: int, count: int, reserved: int, first: float, unblocked: int, *, is_poll: bool
    ) -> None:
        self.place = place
        self.count = count  #: messages that are asked for
        self.reserved = reserved  #: messages that room is kept for
        self.first = first  #: when it was asked first, on the lease clock
        self.unblocked = unblocked  #: messages with a group that had been acknowledged by then
        self.is_poll = is_poll  #: it waits for messages
        self.request: PatientRequest | None = None


class Level:
    """One queue of a task, and how busy it is."""

    def __init__(self, number: int, queue: str, now: float) -> None:
        self.number = number
        self.queue = queue
        self.part = f"receive {queue}"  #: what the log calls its receives
        self.width = 1  #: receives that may be in flight
        self.open: dict[int, OpenReceive] = {}  #: receives that are in flight, by place
        self.polls = 0  #: those of them that wait for messages
        self.asked = 0  #: messages that receives in flight will probably bring
        self.busy = False  #: the last answer was full
        self.full = 0  #: full answers in a row
        self.singly = 1  #: answers that shall hold one message, before the next may hold more
        self.empty = False  #: the last answer held nothing
        self.grouped = False  #: the last answer had many messages, some of them put with a group
        self.pause_until = 0.0  #: no receive is worth its cost before, on the loop's clock
        self.unblocked: int | None = None  #: the pause is over when this many were acknowledged no more
        self.last_poll: float | None = None
        self.arrivals = Arrivals(now)

    def free_place(self) -> int:
        """Return the lowest place at which no receive is in flight."""
        return next(place for place in itertools.count() if place not in self.open)

    def learn(
        self, got: int, asked_for: int, limits: Limits, now: float, *, suspicious: bool, grouped: bool
    ) -> bool:
        """Widen after full answers, narrow after a short one; return whether the next receive is to wait.

        ``suspicious``: the answer held a suspect. ``grouped``: it held messages that were put with a group.
        """
        entries = limits.entries
        self.busy = got == asked_for and got > 0
        self.arrivals.note(got, now)
        if got:
            self.singly = SINGLY_AFTER_SUSPECT if suspicious else max(0, self.singly - 1)
        self.full = self.full + 1 if got == entries else 0
        worth = 1 + math.ceil(self.arrivals.rate(now) * SECONDS_ASKED_FOR / entries)
        most = min(limits.requests_in_flight, worth)
        self.width = min(self.width + 1, most) if self.full >= BACKLOG_AFTER else 1
        is_short = got < asked_for
        is_enough = not grouped and 0 < self.full < BACKLOG_AFTER
        return bool(is_short and (got or self.grouped)) or is_enough
