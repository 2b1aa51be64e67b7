"""Lanes: which held message is called next. A pure data structure of one task; only the leader touches it.

There is one lane for each queue and group. One call of a lane runs at a time: a call of its head or, in a batch, of
its first messages. A lane is ready, running or parked:

- ``add`` puts a message at the end of its lane.
- ``peek`` returns the head of the best ready lane, ``start`` marks that head as running. The highest level comes
  first. Within a level redelivered messages come before new ones, and then the message that has been ready for
  longest. But of 10 calls that begin while a lower level is ready, 1 is a call of a lower level.
- ``follow`` adds the message behind a running one to the same call.
- ``finish`` takes the head out after its last call. ``park`` keeps the head in its lane until its backoff is over.
- ``drop`` takes a message and all messages behind it out, because the lease is lost or they are given back.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque

from sqspipes.calls.held import Held, Lane, State

#: After so many calls in a row for which a ready lower level had to wait, the next call is one of a lower level.
SHARE_OF_HIGHER = 9


class LevelCounts:
    """What is held of one level.

    ``ready``, ``running`` and ``parked`` count lanes. ``waiting`` counts messages behind others in their lanes.
    """

    __slots__ = ("parked", "ready", "running", "waiting")

    def __init__(self) -> None:
        self.ready = self.running = self.parked = self.waiting = 0

    @property
    def active(self) -> int:
        """The lanes that use room: those that are ready or running."""
        return self.ready + self.running


class Lanes:
    """All lanes of one task.

    With ``strict`` no lower level is called while a higher level is ready. No call of a level below ``floor`` begins.
    """

    def __init__(self, levels: int, *, strict: bool = False) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}
        # For each level, lowest first: the heads of ready lanes, the redelivered heads and the new ones.
        self._ready: list[tuple[deque[Held], deque[Held]]] = [(deque(), deque()) for _ in range(levels)]
        # A heap: when each parked message is due. A message that was dropped stays in it, and is passed over later.
        self._parked: list[tuple[float, int, Held]] = []
        # Messages cannot be compared, so these numbers order the messages that are due at the same time.
        self._serial = itertools.count()
        self.of = [LevelCounts() for _ in range(levels)]  #: by level
        self.floor = 0
        self._has_one_level = levels == 1
        self._strict = strict
        self._higher = 0  # calls in a row that began while a lower level was ready
        self._last_lower = levels  # the lower level that was called last before a ready higher one

    @property
    def ready(self) -> int:
        """Ready lanes of all levels."""
        if self._has_one_level:
            return self.of[0].ready
        return sum([counts.ready for counts in self.of])

    @property
    def startable(self) -> int:
        """Ready lanes of the levels from ``floor`` on: their calls may begin."""
        return sum([counts.ready for counts in self.of[self.floor :]])

    @property
    def running(self) -> int:
        """Lanes whose head runs."""
        return sum([counts.running for counts in self.of])

    @property
    def parked(self) -> int:
        """Lanes whose head is in backoff."""
        return sum([counts.parked for counts in self.of])

    @property
    def waiting(self) -> int:
        """Messages that wait behind others in their lanes."""
        return sum([counts.waiting for counts in self.of])

    @property
    def active(self) -> int:
        """The lanes that use room: those that are ready or running."""
        return sum([counts.active for counts in self.of])

    @property
    def empty(self) -> bool:
        """Whether nothing at all is held."""
        return not self._lanes

    def add(self, held: Held) -> None:
        """Put a message at the end of its lane."""
        queue, _, _, _, _, group, _ = held.delivery
        lane = self._lanes.get((queue, group))
        if lane is None:
            lane = held.lane = self._lanes[queue, group] = Lane((queue, group))
            lane.messages.append(held)
            self._make_ready(held)
            return
        held.lane = lane
        held.state = State.WAITING
        lane.messages.append(held)
        self.of[held.level].waiting += 1

    def peek(self, beside: Held | None = None) -> Held | None:
        """Return the message to call next, or None.

        With ``beside``, for a batch, that is a message of the same level as that one, if the level has a ready lane.
        """
        if self._has_one_level:  # nearly always
            redelivered, new = self._ready[0]
            return redelivered[0] if redelivered else new[0] if new else None
        levels = [level for level in range(self.floor, len(self.of)) if self.of[level].ready]
        if not levels:
            return None
        level = beside.level if beside is not None and beside.level in levels else self._turn(levels)
        redelivered, new = self._ready[level]
        return (redelivered or new)[0]

    def _turn(self, levels: list[int]) -> int:
        """Return the level to call next, of levels that are ready.

        That is the highest level, or a lower one if lower levels have waited for ``SHARE_OF_HIGHER`` calls. The lower
        levels come one after the other, from higher to lower ones.
        """
        *lower, highest = levels
        if not lower or self._strict or self._higher < SHARE_OF_HIGHER:
            return highest
        return max((level for level in lower if level < self._last_lower), default=lower[-1])

    def set_floor(self, floor: int) -> bool:
        """Let no call of a level below ``floor`` begin; return whether lower levels may begin than before."""
        lowered, self.floor = floor < self.floor, floor
        return lowered

    def begun(self, held: Held) -> None:
        """Note that a call of a message begins, so that lower levels get their share of the calls."""
        if self._has_one_level:
            return
        if any(counts.ready for counts in self.of[held.level + 1 :]):
            self._higher, self._last_lower = 0, held.level
        elif any(counts.ready for counts in self.of[: held.level]):
            self._higher += 1

    def start(self, held: Held) -> None:
        """Mark the message that ``peek`` returned as running."""
        redelivered, new = self._ready[held.level]
        (redelivered if held.redelivered else new).popleft()
        counts = self.of[held.level]
        counts.ready -= 1
        counts.running += 1
        held.state = State.RUNNING

    def behind(self, held: Held, most: int) -> list[Held]:
        """Return the messages behind the head of a lane, in order, ``most`` of them at most."""
        return [] if held.lane is None else list(itertools.islice(held.lane.messages, 1, 1 + most))

    def follow(self, held: Held) -> None:
        """Mark a message that ``behind`` returned as running, in the same call as all messages before it."""
        self.of[held.level].waiting -= 1
        held.state = State.RUNNING

    def finish(self, held: Held) -> None:
        """Take the head of a running lane out for good; the next message becomes ready, unless it runs too."""
        held.state = State.SETTLING
        lane, counts = held.lane, self.of[held.level]
        if lane is None:
            counts.running -= 1
            return
        held.lane = None
        messages = lane.messages
        del messages[0]
        if not messages:
            counts.running -= 1
            del self._lanes[lane.key]
        elif messages[0].state is not State.RUNNING:
            counts.running -= 1
            counts.waiting -= 1
            self._make_ready(messages[0])

    def park(self, held: Held, until: float) -> None:
        """Keep the head of a running lane in its lane until its backoff is over, at ``until``.

        Messages that ran behind the head, in the same batch, wait behind it again.
        """
        counts = self.of[held.level]
        counts.running -= 1
        counts.parked += 1
        held.state = State.PARKED
        for one in held.lane.messages if held.lane is not None else ():
            if one.state is State.RUNNING:
                counts.waiting += 1
                one.state = State.WAITING
        heapq.heappush(self._parked, (until, next(self._serial), held))

    def wake(self, now: float) -> int:
        """Make the parked messages ready whose backoff is over; return how many these are."""
        woken = 0
        while self._parked and self._parked[0][0] <= now:
            held = heapq.heappop(self._parked)[2]
            if held.state is State.PARKED:
                self.of[held.level].parked -= 1
                self._make_ready(held)
                woken += 1
        return woken

    def next_wake(self) -> float | None:
        """Return when the backoff of the next parked message is over, None if no message is parked."""
        while self._parked and self._parked[0][2].state is not State.PARKED:
            heapq.heappop(self._parked)
        return self._parked[0][0] if self._parked else None

    def drop(self, held: Held) -> list[Held]:
        """Take a message that does not run out, with all messages behind it in its lane; return them in order."""
        lane = held.lane
        if lane is None or held.state not in (State.WAITING, State.PARKED):
            return []
        place = lane.messages.index(held)
        dropped = list(lane.messages)[place:]
        for one in reversed(dropped):
            self._forget(one, head=one is lane.messages[0])
            lane.messages.pop()
            one.lane = None
            one.state = State.OVER
        if not lane.messages:
            del self._lanes[lane.key]
        return dropped

    def drop_behind(self, held: Held) -> list[Held]:
        """Take out all messages that wait behind a running one; return them in order."""
        lane = held.lane
        waiting = [] if lane is None else [one for one in lane.messages if one.state is State.WAITING]
        return self.drop(waiting[0]) if waiting else []

    def drop_idle(self) -> list[Held]:
        """Take out all messages that do not run; return them, those of each lane in order."""
        dropped: list[Held] = []
        for lane in list(self._lanes.values()):
            head = lane.messages[0]
            dropped += self.drop_behind(head) if head.state is State.RUNNING else self.drop(head)
        return dropped

    def _forget(self, held: Held, *, head: bool) -> None:
        """Count a message no more; take the head of a ready lane out of ``_ready``."""
        counts = self.of[held.level]
        if held.state is State.PARKED:
            counts.parked -= 1
        elif head:
            self._queue_of(held).remove(held)
            counts.ready -= 1
        else:
            counts.waiting -= 1

    def _make_ready(self, held: Held) -> None:
        held.state = State.WAITING
        redelivered, new = self._ready[held.level]
        (redelivered if held.redelivered else new).append(held)
        self.of[held.level].ready += 1

    def _queue_of(self, held: Held) -> deque[Held]:
        redelivered, new = self._ready[held.level]
        return redelivered if held.redelivered else new
