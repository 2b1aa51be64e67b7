"""Intake: receives for one task, one thread per queue when idle, a few more when a queue is busy."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
import uuid
from collections.abc import Callable

from sqspipes.brokers.base import Broker
from sqspipes.errors import BrokerUnavailableError
from sqspipes.messages.message import Delivery
from sqspipes.runner.dispatcher import Dispatcher
from sqspipes.runner.lanes import SHARE_OF_HIGHER
from sqspipes.runner.leases import LeaseClock
from sqspipes.runner.outage import Outage, pause_after_return
from sqspipes.runner.pace import MOST_BEHIND, MOST_PARKED, Arrivals
from sqspipes.support import clocks

#: Messages of an answer after which a queue of groups is asked again without a poll.
MANY_GROUPED = 3

#: Answers of one message that follow one with a suspect.
SINGLY_AFTER_SUSPECT = 10

#: Full answers in a row after which more waits in a queue than came while nobody asked.
BACKLOG_AFTER = 2

#: Seconds that a receive waits which is made beside another one of its queue: one that asked at once would come back
#: with nothing whenever the others keep up.
BESIDE_SECONDS = 1.0

#: Receives of a queue in flight ask for no more than what came in so many seconds, and the first one's worth: they
#: keep room from lower levels.
SECONDS_ASKED_FOR = 0.25

#: Seconds' worth of its share that a lower level asks for while higher ones fill the room.
SECONDS_OF_SHARE = 5


class Receiver:
    """One thread that receives from a queue. The first one of its queue, at place 0, is the one that polls."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.turn: tuple[int, int] | None = None  #: messages to ask for, and to keep room for
        self.called = threading.Lock()  #: released when it has a turn, or is to end
        self.called.acquire()


class Level:
    """One queue of a task, and how busy it is."""

    def __init__(self, number: int, queue: str) -> None:
        self.number = number
        self.queue = queue
        self.part = f"receive {queue}"  #: what the log calls its receives
        self.width = 1  #: receives that may be in flight
        self.threads = 0  #: receivers, started as the width asks
        self.waiting: list[Receiver] = []  #: receivers that wait for a turn, the first place first
        self.open = 0  #: receives that are in flight
        self.polls = 0  #: those of them that wait for messages
        self.asked = 0  #: messages that receives in flight will probably bring
        self.busy = False  #: the last answer was full
        self.full = 0  #: full answers in a row
        self.singly = 1  #: answers that shall hold one message, before the next may hold more
        self.empty = False  #: the last answer held nothing
        self.grouped = False  #: the last answer had many messages, some of them put with a group
        self.last_poll: float | None = None
        self.arrivals = Arrivals(clocks.monotonic())


class Intake:
    """Fills one task's lanes: as much as there is room for, higher levels first, one long poll per idle queue."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        levels: list[int],
        broker: Broker,
        outage: Outage,
        clock: LeaseClock,
        ended: Callable[[], None],
        died: Callable[[str, BaseException], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._task = dispatcher.task
        self._levels = [Level(number, self._task.queue(number)) for number in levels]
        self._broker = broker
        self._outage = outage
        self._clock = clock
        self._ended = ended
        self._died = died
        self._stopped = threading.Event()
        self._paused = False
        self._resumed = threading.Event()  # replaced when it is set
        outage.on_return(self._resume)
        self._live = 0
        # The name of each receive: a random one each time would ask the system for it.
        self._name, self._attempts = uuid.uuid4().hex, itertools.count(1)
        self.wait = broker.limits.longest_wait  #: seconds that a poll stays open

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.name

    @property
    def levels(self) -> list[Level]:
        """The queues that are served."""
        return self._levels

    def start(self) -> None:
        """Begin to receive."""
        self._hold_back()
        with self._dispatcher.lock:
            for level in self._levels:
                self._start_threads(level)

    def _start_threads(self, level: Level) -> None:
        """Have as many receivers as the width asks for, and one more where lower levels may wait for an answer."""
        spare = self._task.strict and level is not self._levels[0]
        while level.threads < level.width + spare:
            self._start_thread(level)

    def _start_thread(self, level: Level) -> None:
        receiver = Receiver(level.threads)
        name = f"sqspipes {level.part} {receiver.place + 1}"
        threading.Thread(target=self._work, args=(level, receiver), name=name, daemon=True).start()
        level.threads += (
            1  # only now: a stop waits for threads that are counted, and this one might not have begun
        )
        self._live += 1

    def pause(self, paused: bool) -> bool:
        """Begin no receive until told to go on; return whether that is a change.

        Polls that are open are cut where that leaves no trace; elsewhere what they still bring is taken in.
        """
        with self._dispatcher.lock:
            changed, self._paused = paused != self._paused, paused
            if changed and not paused:
                self._invite()
            polling = paused and any(level.open for level in self._levels)
        if polling and self._broker.limits.clean_interrupt:
            self._broker.interrupt()
        self._hold_back()
        return changed

    def stop(self) -> None:
        """Begin no receive any more."""
        self._stopped.set()
        self._resumed.set()
        with self._dispatcher.lock:
            self._dispatcher.unblocking.notify_all()
            for level in self._levels:
                for receiver in level.waiting:
                    receiver.called.release()
                level.waiting.clear()

    @property
    def open(self) -> bool:
        """Whether receives may still be under way; one that is overdue brings nothing any more."""
        return self._live > sum(self._outage.silent(level.part) for level in self._levels)

    def _work(self, level: Level, receiver: Receiver) -> None:
        try:
            while turn := self._wait_for_turn(level, receiver):
                self._receive(level, receiver.place, *turn)
        except BaseException as error:
            self._died(level.part, error)
        with self._dispatcher.lock:
            self._live -= 1
        self._ended()

    def _receive(self, level: Level, place: int, count: int, reserved: int) -> None:
        """Receive once, however many tries it takes; the lease counts from the first one.

        Also when the answer was overdue: nobody knows when the broker gave it.
        """
        wait = self._wait_for_messages(level, place)
        waits = wait > 0
        unblocked = self._dispatcher.unblocked
        attempt, tries, first = f"{self._name}-{next(self._attempts)}", 0, self._clock.now()
        deliveries: list[Delivery] = []
        last = False
        while True:
            level.last_poll = clocks.monotonic()
            try:
                with self._outage.asking(level.part):
                    deliveries = self._broker.receive(
                        level.queue, count=count, wait=wait, lease=self._task.lease, attempt=attempt
                    )
                break
            except BrokerUnavailableError as error:
                tries += 1
                if last:
                    break
                # If only the answer was lost, what it held would stay hidden: a stop asks for it once more.
                last = self._rest(self._outage.failed(level.part, error, tries))
                # The first repetition may have what a cut poll at the server still takes. Later ones are to find out
                # whether the broker is there again.
                wait = 0.0 if last or tries > 1 else wait
        if not self._stopped.is_set():
            self._outage.succeeded(level.part)
        ended = self._clock.now()
        received = first if tries or ended - first > self._broker.limits.longest_answer else ended
        with self._dispatcher.lock:
            level.polls -= waits
            level.empty = not deliveries
        self._hold_back()
        suspicious = any(map(self._dispatcher.is_suspicious, deliveries))
        grouped = bool(deliveries) and self._dispatcher.take(level.number, deliveries, received)
        self._learn(level, count, len(deliveries), reserved, suspicious)
        short = len(deliveries) < count
        enough = not grouped and 0 < level.full < BACKLOG_AFTER
        if (short and (deliveries or level.grouped)) or enough:
            self._linger(level, unblocked if grouped or level.grouped else None)
        level.grouped = grouped and len(deliveries) >= MANY_GROUPED

    def _wait_for_messages(self, level: Level, place: int) -> float:
        """Return the seconds that a receive is to wait, and count it if it does."""
        with self._dispatcher.lock:
            keeps_out = self._keeps_lower_out(level)
            # A level that keeps lower ones waiting does not wait itself: an empty answer lets them go on. Nor does
            # the receive after many messages with groups: what is left may all be behind what is held here.
            if level.grouped or (keeps_out and (self._one_at_a_time(level) or self._lower_waits(level))):
                return 0.0
            level.polls += 1
        return min(self.wait, BESIDE_SECONDS) if place or keeps_out else self.wait

    def _keeps_lower_out(self, level: Level) -> bool:
        """Say whether nothing of lower levels may begin before this one has answered that it is empty."""
        return self._task.strict and not level.empty and level is not self._levels[0]

    def _lower_waits(self, level: Level) -> bool:
        """Say whether there is something of a lower level to begin or to be asked for; the lock is held."""
        lower = [each for each in self._levels if each.number < level.number]
        return any(
            self._dispatcher.lanes.of[each.number].ready or (each.waiting and not each.waiting[0].place)
            for each in lower
        )

    def _one_at_a_time(self, level: Level) -> bool:
        """Say whether receives of a queue may not overlap, as one of its messages may kill its process."""
        return bool(level.singly or self._dispatcher.suspects(level.queue))

    def _width(self, level: Level) -> int:
        """Return how many receives may be in flight: beside polls one more, for lower levels that wait."""
        if not self._keeps_lower_out(level) or not level.open:
            return level.width
        if level.open - level.polls >= level.width:
            return 0  # its answer may be that the queue is empty, while another one's is not taken in yet
        asks = level.polls == level.open and self._lower_waits(level)
        return max(level.width, level.open + 1) if asks else level.width

    def _rest(self, seconds: float) -> bool:
        """Wait between two tries; return whether it was told to stop."""
        resumed = self._resumed
        if not self._stopped.is_set() and resumed.wait(seconds):
            self._stopped.wait(pause_after_return())
        return self._stopped.is_set()

    def _resume(self) -> None:
        resumed, self._resumed = self._resumed, threading.Event()
        resumed.set()

    def _linger(self, level: Level, unblocked: int | None) -> None:
        """Wait until the next receive is worth its cost: until it may be full, or there is more to be had.

        A group that is held here gives nothing more until some of it is acknowledged; ``unblocked`` is how often
        that had happened when the last receive began, None where no group is held.
        """
        linger = self._dispatcher.linger
        if unblocked is None:
            with self._dispatcher.lock:
                pause = level.arrivals.pause(linger, self._broker.limits.entries, clocks.monotonic())
            self._stopped.wait(pause)
            return
        deadline, unblocking = clocks.monotonic() + linger, self._dispatcher.unblocking
        with unblocking:
            while self._dispatcher.unblocked == unblocked and not self._stopped.is_set():
                left = deadline - clocks.monotonic()
                if left <= 0:
                    return
                unblocking.wait(left)

    def _learn(self, level: Level, asked: int, got: int, reserved: int, suspicious: bool) -> None:
        """Widen a queue whose answers are full, narrow one whose answers are short."""
        with self._dispatcher.lock:
            level.open -= 1
            level.asked -= reserved
            level.busy = got == asked and got > 0
            now, entries = clocks.monotonic(), self._broker.limits.entries
            level.arrivals.note(got, now)
            if got:
                level.singly = SINGLY_AFTER_SUSPECT if suspicious else max(0, level.singly - 1)
            level.full = level.full + 1 if got == entries else 0
            asked_for = 1 + math.ceil(level.arrivals.rate(now) * SECONDS_ASKED_FOR / entries)
            most = min(self._broker.limits.requests_in_flight, asked_for)
            level.width = min(level.width + 1, most) if level.full >= BACKLOG_AFTER else 1
            if not self._stopped.is_set():
                self._start_threads(level)
            self._invite()

    def _wait_for_turn(self, level: Level, receiver: Receiver) -> tuple[int, int] | None:
        """Wait until this receiver may receive; return how many messages to ask for, and to keep room for."""
        receiver.turn = None
        with self._dispatcher.lock:
            if self._stopped.is_set():
                return None
            bisect.insort(level.waiting, receiver, key=lambda each: each.place)
            self._invite()
        receiver.called.acquire()
        return None if self._stopped.is_set() else receiver.turn

    def _invite(self) -> None:
        """Give a turn to each receiver that may begin, higher levels first; the dispatcher's lock is held."""
        used = asked = 0
        for level in reversed(self._levels):
            used += self._dispatcher.lanes.of[level.number].active
            asked += level.asked
            while level.waiting and not self._is_kept_out(level):
                place = level.waiting[0].place
                count = self._allowed(level, place, used, asked)
                if not count:
                    break
                receiver = level.waiting.pop(0)
                # A poll of a queue that was empty just now keeps no room from the others.
                reserved = count if place or level.busy else 0
                receiver.turn = count, reserved
                level.open += 1
                level.asked += reserved
                asked += reserved
                receiver.called.release()
        wanted = any(level.waiting and level.waiting[0].place < self._width(level) for level in self._levels)
        self._dispatcher.invite = self._invite if wanted else None

    def _allowed(self, level: Level, place: int, used: int, asked: int) -> int:
        """Return how many messages there is room for, beside those of this level and of higher ones.

        What is held of lower ones takes no room from it. The dispatcher's lock is held.
        """
        # What comes in beside a suspect could not run, and would die with it.
        if place >= self._width(level) or self._paused or self._dispatcher.shut:
            return 0
        dispatcher = self._dispatcher
        held = dispatcher.lanes.of[level.number :]
        if (
            sum([of.waiting for of in held]) >= MOST_BEHIND
            or sum([of.parked for of in held]) >= 2 * MOST_PARKED
        ):
            return 0
        used += dispatcher.unsettled
        if dispatcher.pace.probing:
            return 1 if used == 0 and level.open == 0 else 0
        # A process's first receive of a queue, and those while it holds a suspect and after it, take a single
        # message: one that kills its process then takes no neighbour with it.
        if self._one_at_a_time(level):
            room = 0 if level.open else dispatcher.pace.capacity - used
            return min(1, max(0, room) or self._share(level))
        most, room = self._broker.limits.entries, dispatcher.pace.capacity - used - asked
        if room < most and sum([of.ready for of in held]) >= dispatcher.appetite:
            room = 0  # there is work enough: a fuller request will do
        return min(most, max(0, room) or self._share(level))

    def _share(self, level: Level) -> int:
        """Return how many messages a lower level may ask for though higher ones fill the room.

        It has its part of the calls, so that much must be at hand before the next receive has ended.
        """
        lower = len(self._levels) - 1
        if self._task.strict or level is self._levels[-1] or level.open:
            return 0
        a_second = self._dispatcher.pace.capacity // (SHARE_OF_HIGHER + 1) // lower
        enough = self._dispatcher.lanes.of[level.number].active > a_second
        return 0 if enough else max(1, SECONDS_OF_SHARE * a_second)

    def _is_kept_out(self, level: Level) -> bool:
        """Say whether a higher level has to answer that it is empty before this one is asked."""
        return self._task.strict and level.number < self._floor()

    def _floor(self) -> int:
        """Return the highest level that has not answered that it is empty: nothing below it is to begin."""
        return next((level.number for level in reversed(self._levels) if not level.empty), 0)

    def _hold_back(self) -> None:
        """Tell the dispatcher what may begin; what is held when a pause begins is finished."""
        if self._task.strict:
            with self._dispatcher.lock:
                lowered = self._dispatcher.lanes.set_floor(0 if self._paused else self._floor())
            if lowered:
                self._dispatcher.pump()
