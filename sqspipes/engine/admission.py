"""Admission: what one task receives. As much as there is room for, higher levels first, one poll per idle queue."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from functools import partial

from sqspipes.brokers.base import Limits
from sqspipes.brokers.exchange import Receive
from sqspipes.engine.lanes import SHARE_OF_HIGHER
from sqspipes.engine.levels import Level, OpenReceive, Received
from sqspipes.engine.loop import EngineLoop, Timer
from sqspipes.engine.pace import MOST_BEHIND, MOST_PARKED
from sqspipes.engine.requests import Requests
from sqspipes.engine.task_state import TaskState
from sqspipes.messages.message import Delivery
from sqspipes.support import clocks
from sqspipes.support.clocks import LeaseClock

#: Messages of an answer after which a queue of groups is asked again without a poll.
MANY_GROUPED = 3

#: Seconds that a receive waits which is made beside another one of its queue: one that asked at once would come back
#: with nothing whenever the others keep up.
BESIDE_SECONDS = 1.0

#: Seconds' worth of its share that a lower level asks for while higher ones fill the room.
SECONDS_OF_SHARE = 5


class Admission:
    """Decides what to receive for one task. Whoever owns it gets the answers by ``take_answers``."""

    def __init__(
        self,
        state: TaskState,
        levels: Sequence[int],
        requests: Requests,
        limits: Limits,
        clock: LeaseClock,
        linger: float,
    ) -> None:
        task = self._task = state.task
        self._lanes = state.lanes
        self._pace = state.pace
        self._suspects = state.suspects
        self._requests = requests
        self._loop: EngineLoop = requests.loop
        self._limits = limits
        self._clock = clock
        self._linger = linger
        self._appetite = task.workers * (task.batch or 1)
        self.levels = [Level(number, task.queue(number), self._loop.now()) for number in levels]
        self.wait = limits.longest_wait  #: seconds that a poll stays open
        self.is_paused = False
        self.is_stopped = False
        self.is_pause_over = False  #: since the last invitation
        self.unblocked = 0  #: messages put with a group that were acknowledged
        self._answers: list[tuple[Received, OpenReceive]] = []
        self._timer: Timer | None = None
        # The name of each receive: a random one each time would ask the system for it.
        self._name, self._attempts = uuid.uuid4().hex, itertools.count(1)

    # What its owner tells and asks

    def take_answers(self) -> list[tuple[Received, OpenReceive]]:
        """Return the receives that were answered since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def learn(self, answer: tuple[Received, OpenReceive], *, is_suspicious: bool, is_grouped: bool) -> None:
        """Widen a queue whose answers are full, narrow one whose answers are short."""
        (level, deliveries, _), receive = answer
        got, now = len(deliveries), self._loop.now()
        is_to_wait = level.learn(
            got, receive.count, self._limits, now, suspicious=is_suspicious, grouped=is_grouped
        )
        if is_to_wait:
            self._pause(level, now, receive.unblocked if is_grouped or level.grouped else None)
        level.grouped = is_grouped and got >= MANY_GROUPED

    def invite(self, used: int, *, is_shut: bool) -> None:
        """Begin the receives that there is room for, higher levels first.

        ``used`` is the room that messages take which settle; ``is_shut``: what came in now could not run, and would
        die with a suspect.
        """
        self.is_pause_over = False
        if self.is_stopped or self.is_paused or is_shut:
            return
        asked = 0
        for level in reversed(self.levels):
            used += self._lanes.of[level.number].active
            asked += level.asked
            while not self._is_kept_out(level):
                place = level.free_place()
                if self._is_pausing(level, place):
                    break
                count = self._allowed(level, place, used, asked)
                if not count:
                    break
                # A poll of a queue that was empty just now keeps no room from the others.
                reserved = count if place or level.busy else 0
                asked += reserved
                self._receive(level, place, count, reserved)

    def stop(self) -> None:
        """Begin no receive any more. One whose answer was lost is repeated once: what it held would stay hidden."""
        self.is_stopped = True
        for receive in self._open():
            if receive.request is not None:
                receive.request.try_once_more()

    def cut(self) -> None:
        """End the receives that are open."""
        for receive in self._open():
            if receive.request is not None:
                receive.request.cut()

    @property
    def is_open(self) -> bool:
        """Whether receives are under way; one that is overdue brings nothing any more."""
        return any(r.request is None or not r.request.is_silent for r in self._open())

    @property
    def has_polls(self) -> bool:
        """Whether receives are under way that wait for messages, though none is to begin."""
        return self.is_paused and any(level.polls for level in self.levels)

    @property
    def floor(self) -> int:
        """With ``strict``, the highest level that has not answered that it is empty: nothing below is to begin."""
        if not self._task.strict or self.is_paused:
            return 0
        return self._floor()

    def _open(self) -> list[OpenReceive]:
        return [receive for level in self.levels for receive in level.open.values()]

    # One receive

    def _receive(self, level: Level, place: int, count: int, reserved: int) -> None:
        wait = self._seconds_to_wait(level, place)
        level.polls += wait > 0
        level.asked += reserved
        receive = OpenReceive(place, count, reserved, self._clock.now(), self.unblocked, is_poll=wait > 0)
        level.open[place] = receive
        attempt = f"{self._name}-{next(self._attempts)}"

        def make(tries: int) -> Receive:
            level.last_poll = clocks.monotonic()
            # The first repetition may have what a cut poll at the server still takes. Later ones are to find out
            # whether the broker is there again.
            waits = 0.0 if self.is_stopped or tries > 1 else wait
            return Receive(level.queue, count, waits, self._task.lease, attempt)

        receive.request = self._requests.ask(
            level.part, make, partial(self._came, level, receive), partial(self._end, level, receive)
        )

    def _end(self, level: Level, receive: OpenReceive) -> None:
        del level.open[receive.place]
        level.polls -= receive.is_poll
        level.asked -= receive.reserved

    def _came(self, level: Level, receive: OpenReceive, deliveries: Sequence[Delivery]) -> None:
        self._end(level, receive)
        level.empty = not deliveries
        ended = self._clock.now()
        repeated = receive.request is not None and receive.request.tries > 0
        # Nobody knows when the broker gave an answer that was overdue.
        is_late = repeated or ended - receive.first > self._limits.longest_answer
        received = receive.first if is_late else ended
        self._answers.append((Received(level, deliveries, received), receive))

    def _seconds_to_wait(self, level: Level, place: int) -> float:
        keeps_out = self._keeps_lower_out(level)
        # A level that keeps lower ones waiting does not wait itself: an empty answer lets them go on. Nor does the
        # receive after many messages with groups: what is left may all be behind what is held here.
        if level.grouped or (keeps_out and (self._one_at_a_time(level) or self._lower_waits(level))):
            return 0.0
        return min(self.wait, BESIDE_SECONDS) if place or keeps_out else self.wait

    def _pause(self, level: Level, now: float, unblocked: int | None) -> None:
        """Wait until the next receive is worth its cost: until it may be full, or there is more to be had.

        A group that is held here gives nothing more until some of it is acknowledged; ``unblocked`` is how often that
        had happened when the last receive began, None where no group is held.
        """
        if unblocked is None:
            seconds = level.arrivals.pause(self._linger, self._limits.entries, now)
        else:
            seconds = self._linger if self.unblocked == unblocked else 0.0
        if seconds > 0:
            level.pause_until, level.unblocked = now + seconds, unblocked
            if self._timer is not None and self._timer.when > level.pause_until:
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._timer = self._loop.at(level.pause_until, self._end_pauses)

    def _end_pauses(self) -> None:
        """Have the task invite again."""
        self.is_pause_over = True
        due = min(
            (level.pause_until for level in self.levels if level.pause_until > self._loop.now()), default=None
        )
        self._timer = None if due is None else self._loop.at(due, self._end_pauses)

    def _is_pausing(self, level: Level, place: int) -> bool:
        if level.pause_until <= self._loop.now():
            return False
        return level.unblocked is None or level.unblocked == self.unblocked

    # How much

    def _allowed(self, level: Level, place: int, used: int, asked: int) -> int:
        """Return how many messages there is room for, beside those of this level and of higher ones.

        What is held of lower ones takes no room from it.
        """
        if place >= self._width(level):
            return 0
        held = self._lanes.of[level.number :]
        if (
            sum([of.waiting for of in held]) >= MOST_BEHIND
            or sum([of.parked for of in held]) >= 2 * MOST_PARKED
        ):
            return 0
        if self._pace.probing:
            return 1 if used == 0 and not level.open else 0
        # A process's first receive of a queue, and those while it holds a suspect and after it, take a single
        # message: one that kills its process then takes no neighbour with it.
        if self._one_at_a_time(level):
            room = 0 if level.open else self._pace.capacity - used
            return min(1, max(0, room) or self._share(level))
        most, room = self._limits.entries, self._pace.capacity - used - asked
        if room < most and sum([of.ready for of in held]) >= self._appetite:
            room = 0  # there is work enough: a fuller request will do
        return min(most, max(0, room) or self._share(level))

    def _share(self, level: Level) -> int:
        """Return how many messages a lower level may ask for though higher ones fill the room.

        It has its part of the calls, so that much must be at hand before the next receive has ended.
        """
        lower = len(self.levels) - 1
        if self._task.strict or level is self.levels[-1] or level.open:
            return 0
        a_second = self._pace.capacity // (SHARE_OF_HIGHER + 1) // lower
        has_enough = self._lanes.of[level.number].active > a_second
        return 0 if has_enough else max(1, SECONDS_OF_SHARE * a_second)

    def _width(self, level: Level) -> int:
        """Return how many receives may be in flight: beside polls one more, for lower levels that wait."""
        if not self._keeps_lower_out(level) or not level.open:
            return level.width
        if len(level.open) - level.polls >= level.width:
            return 0  # its answer may be that the queue is empty, while another one's is not taken in yet
        asks = level.polls == len(level.open) and self._lower_waits(level)
        return max(level.width, len(level.open) + 1) if asks else level.width

    def _one_at_a_time(self, level: Level) -> bool:
        """Say whether receives of a queue may not overlap, as one of its messages may kill its process."""
        return bool(level.singly or self._suspects.get(level.queue, 0))

    # Strict levels

    def _keeps_lower_out(self, level: Level) -> bool:
        """Say whether nothing of lower levels may begin before this one has answered that it is empty."""
        return self._task.strict and not level.empty and level is not self.levels[0]

    def _lower_waits(self, level: Level) -> bool:
        """Say whether there is something of a lower level to begin or to be asked for."""
        lower = [each for each in self.levels if each.number < level.number]
        return any(
            self._lanes.of[each.number].ready or (0 not in each.open and not self._is_pausing(each, 0))
            for each in lower
        )

    def _is_kept_out(self, level: Level) -> bool:
        """Say whether a higher level has to answer that it is empty before this one is asked."""
        return self._task.strict and level.number < self._floor()

    def _floor(self) -> int:
        return next((level.number for level in reversed(self.levels) if not level.empty), 0)
