"""TaskState: what the stages of one task of a run share. Only the leader touches it, but for ``began``."""

from __future__ import annotations

from collections.abc import Sequence

from sqspipes.calls.held import Held
from sqspipes.calls.outcome import Call, EndedCall
from sqspipes.engine.gate import Gate
from sqspipes.engine.lanes import Lanes
from sqspipes.engine.pace import Pace
from sqspipes.summary import Counts
from sqspipes.support import clocks
from sqspipes.tasks.task import Task


class TaskState:
    """Counts, lanes, pace and running calls of one task.

    ``is_dirty``: there may be something to begin, or to receive. ``settling`` counts messages that are held still
    though their calls are over, ``calls`` those that have begun, or were given to threads, until a turn ends them.
    """

    def __init__(self, task: Task, gate: Gate) -> None:
        self.task = task
        self.counts = Counts()
        self.lanes = Lanes(task.priorities, strict=task.strict)
        self.pace = Pace(task.workers * (task.batch or 1), task.rate)
        self.is_dirty = True
        self.is_stopping = False
        self.settling = 0
        self.calls = 0
        self.running: dict[Held, float] = {}  #: and when each call began: inf while it waits for a thread
        self.ended: list[EndedCall] = []  #: calls that have ended, and that the next turn decides about
        self.suspects: dict[str, int] = {}  #: suspects that are held, by queue
        self._gate = gate

    def begin(self, helds: Sequence[Held], when: float) -> Call:
        """Return the call of some messages, which counts from now on."""
        self.calls += 1
        for held in helds:
            self.running[held] = when
        return Call(tuple(helds))

    def began(self, call: Call, when: float) -> None:
        """Note when a call began; in its thread."""
        for held in call.messages:
            if held in self.running:
                self.running[held] = when

    def end(self, *calls: Call) -> None:
        """Note that calls are over."""
        helds = [held for call in calls for held in call.messages]
        self.calls -= len(calls)
        for held in helds:
            del self.running[held]
        self._gate.leave(*helds)

    def count_suspect(self, held: Held, step: int) -> None:
        """Count a suspect that is held from now on, or not any more."""
        self.suspects[held.delivery.queue] = self.suspects.get(held.delivery.queue, 0) + step

    def oldest_call(self) -> float | None:
        """Return the seconds that the oldest running call has been running; from any thread."""
        now = clocks.monotonic()
        ages = [now - began for began in list(self.running.values()) if began < now]
        return max(ages, default=None)
