"""Admission: decides what one task receives.

A task receives no more messages than it has room for. Higher levels come first. An idle queue has one open poll.
"""

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

#: An answer is grouped if it has at least so many messages, and some of them were put with a group. The receive after
#: a grouped answer asks at once, and does not poll.
MANY_GROUPED = 3

#: Seconds for which a receive waits if another receive of its queue is in flight. A receive that asked at once would
#: find nothing whenever the other receives keep up with the queue.
BESIDE_SECONDS = 1.0

#: While higher levels fill the room, a lower level asks for its share of the calls of so many seconds.
SECONDS_OF_SHARE = 5


class Admission:
    """Decides what to receive for one task, and receives it.

    Its owner is the task's hub, ``TaskRun``. The owner takes the answers by ``take_answers``.
    """

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
        self._appetite = task.workers * (task.batch or 1)  # the messages that all calls together can take
        self.levels = [Level(number, task.queue(number), self._loop.now()) for number in levels]
        self.wait = limits.longest_wait  #: seconds for which a poll stays open
        self.is_paused = False
        self.is_stopped = False
        self.is_pause_over = False  #: a pause has ended since the last ``invite``
        self.unblocked = 0  #: the messages put with a group that were acknowledged so far
        self._answers: list[tuple[Received, OpenReceive]] = []
        self._timer: Timer | None = None
        # The attempt id of each receive is made of these two. A new random id for each receive would cost a call of
        # the operating system.
        self._name, self._attempts = uuid.uuid4().hex, itertools.count(1)

    # What the owner calls

    def take_answers(self) -> list[tuple[Received, OpenReceive]]:
        """Return the receives that were answered since the last call."""
        answers, self._answers = self._answers, []
        return answers

    def learn(self, answer: tuple[Received, OpenReceive], *, is_suspicious: bool, is_grouped: bool) -> None:
        """Learn from an answer how busy its queue is.

        If the next answer would probably hold few messages, the queue has a pause.
        """
        (level, deliveries, _), receive = answer
        got, now = len(deliveries), self._loop.now()
        is_to_wait = level.learn(
            got, receive.count, self._limits, now, suspicious=is_suspicious, grouped=is_grouped
        )
        # Here ``level.grouped`` is still about the answer before this one.
        if is_to_wait:
            self._pause(level, now, receive.unblocked if is_grouped or level.grouped else None)
        level.grouped = is_grouped and got >= MANY_GROUPED

    def invite(self, used: int, *, is_shut: bool) -> None:
        """Begin the receives that there is room for, higher levels first.

        ``used`` is the room that settling messages take. ``is_shut``: a suspect shuts the gate, or is about to. Then
        nothing is received: a message that came in now could not be called, and the suspect may kill this process
        while the message is held.
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
                if self._is_pausing(level):
                    break
                count = self._allowed(level, place, used, asked)
                if not count:
                    break
                # The receive at place 0 keeps no room from other levels, unless the last answer was as large as its
                # receive allowed: the receive may wait for long and bring nothing.
                reserved = count if place or level.busy else 0
                asked += reserved
                self._receive(level, place, count, reserved)

    def stop(self) -> None:
        """Begin no further receive.

        A receive whose answer was lost is repeated once at most. Without the repetition the messages of that answer
        would stay invisible until their leases end.
        """
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
        """Whether receives are under way. An overdue receive does not count, as nothing is expected from it."""
        return any(r.request is None or not r.request.is_silent for r in self._open())

    @property
    def has_polls(self) -> bool:
        """Whether the task is paused, but polls that began before are still open."""
        return self.is_paused and any(level.polls for level in self.levels)

    @property
    def floor(self) -> int:
        """The lowest level of which calls may begin.

        For a strict task that is the highest level whose queue has not answered that it is empty, for other tasks 0.
        """
        # A paused task receives nothing, so no queue would answer that it is empty. What is held is called meanwhile.
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
            # The first repetition waits as the first try did: it may get what the server still takes for the poll
            # that was cut off. Later repetitions ask at once: they are to find out whether the broker is there again.
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
        # The broker may have begun the leases of a repeated or late answer at any time since the first try. If the
        # leases are counted from the first try, none of them ends earlier than this process believes.
        is_late = repeated or ended - receive.first > self._limits.longest_answer
        received = receive.first if is_late else ended
        self._answers.append((Received(level, deliveries, received), receive))

    def _seconds_to_wait(self, level: Level, place: int) -> float:
        keeps_out = self._keeps_lower_out(level)
        # A receive asks at once in two cases. After a grouped answer, all that is left in the queue may be behind
        # messages that are held here. Where a strict level keeps something of lower levels waiting, an empty answer
        # lets the lower levels go on.
        if level.grouped or (keeps_out and (self._one_at_a_time(level) or self._lower_waits(level))):
            return 0.0
        return min(self.wait, BESIDE_SECONDS) if place or keeps_out else self.wait

    def _pause(self, level: Level, now: float, unblocked: int | None) -> None:
        """Let a queue rest until the next receive may bring a full answer.

        ``unblocked`` is None where the queue's messages have no groups. Where they have, the broker hands out nothing
        more of a group until the messages of the group that are held here are acknowledged. Then ``unblocked`` is
        ``Admission.unblocked`` when the last receive began, and the pause ends early with an acknowledgement.
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
        """Have the owner call ``invite`` again, and set the timer for the next pause that ends."""
        self.is_pause_over = True
        due = min(
            (level.pause_until for level in self.levels if level.pause_until > self._loop.now()), default=None
        )
        self._timer = None if due is None else self._loop.at(due, self._end_pauses)

    def _is_pausing(self, level: Level) -> bool:
        if level.pause_until <= self._loop.now():
            return False
        return level.unblocked is None or level.unblocked == self.unblocked

    # How much

    def _allowed(self, level: Level, place: int, used: int, asked: int) -> int:
        """Return how many messages a receive of a level may ask for, 0 if no receive may begin.

        Messages that are held of this level and of higher levels take room. Messages of lower levels take none.
        """
        if place >= self._width(level):
            return 0
        held = self._lanes.of[level.number :]
        if (
            sum([of.waiting for of in held]) >= MOST_BEHIND
            or sum([of.parked for of in held]) >= 2 * MOST_PARKED
        ):
            return 0
        # The last calls all failed. One message at a time shows whether calls succeed again.
        if self._pace.probing:
            return 1 if used == 0 and not level.open else 0
        # Three kinds of receives ask for a single message: those until the first message of a queue has come, those
        # while a suspect of the queue is held, and some after a suspect. If the message kills the process, then no
        # other message was received together with it.
        if self._one_at_a_time(level):
            room = 0 if level.open else self._pace.capacity - used
            return min(1, max(0, room) or self._share(level))
        most, room = self._limits.entries, self._pace.capacity - used - asked
        if room < most and sum([of.ready for of in held]) >= self._appetite:
            room = 0  # as many messages are ready as calls can take, so a later and fuller request will do
        return min(most, max(0, room) or self._share(level))

    def _share(self, level: Level) -> int:
        """Return how many messages a lower level may ask for though higher levels fill the room.

        A lower level has a share of the calls. The messages for these calls have to be here before the next receive
        of the level has ended.
        """
        lower = len(self.levels) - 1
        if self._task.strict or level is self.levels[-1] or level.open:
            return 0
        a_second = self._pace.capacity // (SHARE_OF_HIGHER + 1) // lower
        has_enough = self._lanes.of[level.number].active > a_second
        return 0 if has_enough else max(1, SECONDS_OF_SHARE * a_second)

    def _width(self, level: Level) -> int:
        """Return how many receives of a level may be in flight.

        While a strict level keeps lower levels waiting, one more receive may begin beside its polls. That receive
        asks at once.
        """
        if not self._keeps_lower_out(level) or not level.open:
            return level.width
        if len(level.open) - level.polls >= level.width:
            # A further receive might be answered that the queue is empty while another answer is not taken in yet.
            return 0
        asks = level.polls == len(level.open) and self._lower_waits(level)
        return max(level.width, len(level.open) + 1) if asks else level.width

    def _one_at_a_time(self, level: Level) -> bool:
        """Say whether only one receive of a queue may be in flight, as one of its messages may kill this process."""
        return bool(level.singly or self._suspects.get(level.queue, 0))

    # Strict levels

    def _keeps_lower_out(self, level: Level) -> bool:
        """Say whether lower levels have to wait until this level's queue has answered that it is empty."""
        return self._task.strict and not level.empty and level is not self.levels[0]

    def _lower_waits(self, level: Level) -> bool:
        """Say whether a lower level has a call or a receive to begin."""
        lower = [each for each in self.levels if each.number < level.number]
        return any(
            self._lanes.of[each.number].ready or (0 not in each.open and not self._is_pausing(each))
            for each in lower
        )

    def _is_kept_out(self, level: Level) -> bool:
        """Say whether a higher level's queue has to answer that it is empty before this level is received."""
        return self._task.strict and level.number < self._floor()

    def _floor(self) -> int:
        return next((level.number for level in reversed(self.levels) if not level.empty), 0)
