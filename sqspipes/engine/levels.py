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

#: After an answer with a suspect, so many answers with messages of the same queue hold one message each.
SINGLY_AFTER_SUSPECT = 10

#: So many full answers in a row mean a backlog. A single full answer may hold only what came while no receive was in
#: flight.
BACKLOG_AFTER = 2

#: A queue with a backlog has one receive in flight, and at most as many more as ask for the messages that come in so
#: many seconds. The number has this bound because receives in flight take room from lower levels.
SECONDS_ASKED_FOR = 0.25


class Received(NamedTuple):
    """An answered receive.

    ``received`` is the time from which the leases of its messages are counted, on the lease clock. For most receives
    that is the time of the answer. For a receive that was repeated, or took longer than ``Limits.longest_answer``,
    it is the time of the first try.
    """

    level: Level
    deliveries: Sequence[Delivery]
    received: float


class OpenReceive:
    """A receive in flight.

    The receives of a queue have places. The receive at place 0 keeps its poll open for the longest time, receives at
    other places wait for ``BESIDE_SECONDS`` at most.
    """

    __slots__ = ("count", "first", "is_poll", "place", "request", "reserved", "unblocked")

    def __init__(
        self, place: int, count: int, reserved: int, first: float, unblocked: int, *, is_poll: bool
    ) -> None:
        self.place = place
        self.count = count  #: the messages that the receive asks for
        self.reserved = reserved  #: the messages for which room is kept until the answer comes
        self.first = first  #: when the first try began, on the lease clock
        self.unblocked = unblocked  #: ``Admission.unblocked`` when the first try began
        self.is_poll = is_poll  #: the receive waits at the broker until there is a message
        self.request: PatientRequest | None = None


class Level:
    """One queue of a task, and how busy it is."""

    def __init__(self, number: int, queue: str, now: float) -> None:
        self.number = number
        self.queue = queue
        self.part = f"receive {queue}"  #: what the log calls the receives of this queue
        self.width = 1  #: the receives that may be in flight
        self.open: dict[int, OpenReceive] = {}  #: the receives that are in flight, by place
        self.polls = 0  #: the receives in flight that wait for messages
        self.asked = 0  #: the messages for which receives in flight keep room
        self.busy = False  #: the last answer had all the messages that its receive asked for
        self.full = 0  #: answers in a row that had as many messages as a request can hold
        self.singly = 1  #: so many more answers shall hold one message each
        self.empty = False  #: the last answer had no message
        self.grouped = False  #: the last answer was grouped: see ``MANY_GROUPED`` of admission
        self.pause_until = 0.0  #: no receive begins before this time of the loop's clock
        #: A pause with such a number ends early, as soon as ``Admission.unblocked`` is another number.
        self.unblocked: int | None = None
        self.last_poll: float | None = None  #: when a receive was last tried, on the monotonic clock
        self.arrivals = Arrivals(now)

    def free_place(self) -> int:
        """Return the lowest place at which no receive is in flight."""
        return next(place for place in itertools.count() if place not in self.open)

    def learn(
        self, got: int, asked_for: int, limits: Limits, now: float, *, suspicious: bool, grouped: bool
    ) -> bool:
        """Learn from an answer of ``got`` messages; return whether the next receive is to wait for its pause.

        A backlog allows one more receive in flight. Any other answer allows a single receive. ``suspicious``: the
        answer held a suspect. ``grouped``: some of its messages were put with a group.
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
        # An empty answer makes no pause, as the next receive waits at the broker. The exception is the answer to a
        # receive that followed a grouped answer, as such a receive asks at once.
        is_short = got < asked_for
        is_enough = not grouped and 0 < self.full < BACKLOG_AFTER  # no backlog yet
        return bool(is_short and (got or self.grouped)) or is_enough
