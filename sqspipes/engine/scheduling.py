"""Scheduling: which call of a task begins next."""

from __future__ import annotations

import math

from sqspipes.calls.held import Held
from sqspipes.calls.outcome import Call
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.task_state import TaskState


class Scheduling:
    """Takes calls from the lanes of one task, as the gate, the rate and batches allow.

    ``to_give_back`` has the messages whose leases were lost before their calls, and the messages behind them in their
    lanes. ``unreadable`` has the messages whose bodies hold no value. The hub of the task takes messages out of both.
    ``allowed_at`` is when the rate, or the wait of a batch, allows the next call, on the lease clock.
    """

    def __init__(self, state: TaskState, shared: EngineShared) -> None:
        self._state = state
        self._task = state.task
        self._lanes = state.lanes
        self._shared = shared
        self._may_wait = state.task.rate is not None or state.task.batch is not None
        self._batch_since: float | None = None  # When a batch that is not full began to wait.
        self._refused: Held | None = None  # The suspect that the gate refused.
        self.allowed_at: float | None = None
        self.to_give_back: list[Held] = []
        self.unreadable: list[Held] = []

    def next_call(self, now: float, begins: float = math.inf) -> Call | None:
        """Return the next call, or None if no call may begin. A call that is returned counts as begun.

        ``now`` is the time of the lease clock. ``begins`` is the time of the monotonic clock if the call begins at
        once; it is infinite if the call waits for a thread.
        """
        state, lanes, shared = self._state, self._lanes, self._shared
        while not state.is_stopping:
            # A suspect that the gate refused comes first: as long as it waits, the gate keeps all others out.
            held = (self._refused and self._refused_first()) or lanes.peek()
            if held is None:
                self._batch_since = None
                break
            if self._may_wait and (self._too_soon(now) or self._waits_for_more(now)):
                break
            if held.lost or held.expires <= now:
                if held is self._refused:
                    self._refused = None
                self.to_give_back += lanes.drop(held)
            elif held.message.raw is not None:
                lanes.start(held)  # Its lane waits until its dead letter is made.
                self.unreadable.append(held)
            elif shared.gate.enter(held):
                self._refused = None
                lanes.start(held)
                lanes.begun(held)
                state.pace.begun(now)
                return state.begin([held] if self._task.batch is None else self._batch_of(held, now), begins)
            else:
                self._refused = held if held.suspect else None
                break
        return None

    @property
    def is_suspect_next(self) -> bool:
        """Whether the next call is that of a suspect, so that to ask for it shuts the gate."""
        if not any(self._state.suspects.values()):
            return False
        held = self._refused or self._lanes.peek()
        return held is not None and held.suspect

    @property
    def has_uncalled(self) -> bool:
        """Whether there are messages that cannot be called, to give back or to make dead letters of."""
        return bool(self.to_give_back or self.unreadable)

    def wake(self, now: float) -> bool:
        """Say whether a call that had to wait until ``allowed_at`` may begin now."""
        if self.allowed_at is None or self.allowed_at > now:
            return False
        self.allowed_at = None
        return True

    def forget(self, held: Held) -> None:
        """Note that a suspect is not held any more."""
        if self._refused is held:
            self._refused = None
        self._shared.gate.forget(held)

    def _refused_first(self) -> Held | None:
        """Return the suspect that the gate refused; in a strict task None if a higher level has to go before it."""
        held = self._refused
        if held is None or not self._task.strict:
            return held
        if held.level >= self._lanes.floor and not any(c.ready for c in self._lanes.of[held.level + 1 :]):
            return held
        self._shared.gate.forget(held)
        self._refused = None
        return None

    def _batch_of(self, held: Held, now: float) -> list[Held]:
        """Return the messages of a batch: the message that begins, and those that go with it."""
        together = [held]
        assert self._task.batch is not None
        if not held.suspect:  # A suspect is called alone.
            self._gather(together, self._task.batch, now)
        return together

    def _gather(self, together: list[Held], most: int, now: float) -> None:
        """Add messages to a batch of one message, until it has ``most``.

        First come those behind that message in its lane, then heads of other lanes, each with those behind it.
        """
        self._batch_since = None
        head: Held | None = together[0]
        while head is not None:
            for one in self._lanes.behind(head, most - len(together)):
                if not self._goes_along(one, now):
                    break
                self._lanes.follow(one)
                together.append(one)
            head = self._lanes.peek(beside=together[0]) if len(together) < most else None
            if head is None or not self._goes_along(head, now):
                break
            self._lanes.start(head)
            together.append(head)

    def _goes_along(self, held: Held, now: float) -> bool:
        """Let a message into a batch if it is readable, is no suspect and has its lease, and the gate allows it."""
        is_plain = held.message.raw is None and not held.suspect and self._shared.leases.alive(held, now)
        return is_plain and self._shared.gate.enter(held)

    def _waits_for_more(self, now: float) -> bool:
        """Say whether a batch is to wait for more messages; if so, have the run look again when its wait is over."""
        if self._task.batch is None:
            return False
        lanes = self._lanes
        # Messages behind a running or parked lane-mate cannot go along, and are not told from the others here: so the
        # messages behind lane-mates count only if no lane runs or is parked.
        there = lanes.startable + (lanes.waiting if not lanes.running and not lanes.parked else 0)
        if self._batch_since is None:
            self._batch_since = now
        due = self._batch_since + self._task.batch_wait
        if there >= self._task.batch or now >= due:
            return False
        self.allowed_at = due
        self._shared.notify_at(due)
        return True

    def _too_soon(self, now: float) -> bool:
        """Say whether the rate allows no call yet; if so, have the run look again when it does."""
        seconds = self._state.pace.seconds_to_call(now)
        if seconds:
            self.allowed_at = now + seconds
            self._shared.notify_at(self.allowed_at)
        return seconds > 0
