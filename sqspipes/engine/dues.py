"""Dues: what a run has to look at when its time comes: backoffs, leases, calls that last, a drain."""

from __future__ import annotations

import math

from sqspipes.engine.loop import EngineLoop, Timer
from sqspipes.engine.parts import LAST_POLL_SECONDS, Owner, RunParts
from sqspipes.support import lines
from sqspipes.support.clocks import LeaseClock

logger = lines.logger(__name__)

#: Seconds between two looks at what is due, at most: the lease clock may run ahead of the one that measures waits.
LONGEST_SLEEP = 60.0

#: Seconds without a message after which the log says what the run waits for.
QUIET_SECONDS = 10.0

#: Seconds between looks of a run that drains whether something lingers though no call is to come.
HASTEN_SECONDS = 0.05


class Dues:
    """Looks at the parts of a run when something is due; ``notify_at`` says when that is, on the lease clock."""

    def __init__(self, loop: EngineLoop, clock: LeaseClock) -> None:
        self._loop = loop
        self._clock = clock
        self._parts: RunParts | None = None
        self._owner: Owner | None = None
        self._timer: Timer | None = None
        self._at = math.inf
        self._quiet_at: float | None = None
        self.is_stopping = False

    def begin(self, parts: RunParts, owner: Owner) -> None:
        """Look for the first time soon."""
        self._parts, self._owner = parts, owner
        self._quiet_at = self._clock.now() + QUIET_SECONDS
        self.notify_at(0.0)
        if parts.plan.polls is not None or parts.drains is not None:
            self._loop.tell(self._look_at_drain)

    def notify_at(self, due: float) -> None:
        """Look at a time of the lease clock."""
        if due >= self._at:
            return
        self._at = due
        if self._timer is not None:
            self._timer.cancel()
        seconds = min(due - self._clock.now(), LONGEST_SLEEP)
        self._timer = self._loop.later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        """Do all that is due."""
        self._timer, self._at = None, math.inf
        parts = self._parts
        if parts is None:
            return
        dues = [parts.shared.gate.look()]
        now = self._clock.now()
        dues += [task.wake(now) for task in parts.tasks.values()]
        dues.append(parts.settling.extend_due())
        # A call that begins later is looked at in time, too: its lease will have to be extended before.
        watched = [task.watch() for task in parts.tasks.values()]
        watched += [source.watch() for source in parts.sources]
        dues += [now + seconds for seconds in watched if seconds is not None]
        dues.append(self._watch_quiet(parts, now))
        self.notify_at(min([due for due in dues if due is not None] + [now + LONGEST_SLEEP]))

    def _watch_quiet(self, parts: RunParts, now: float) -> float | None:
        if self._quiet_at is not None and parts.shared.heard.is_set():
            self._quiet_at = None
        if self._quiet_at is not None and now >= self._quiet_at:
            self._quiet_at = None
            logger.info("waiting for put()")
        return self._quiet_at

    def _look_at_drain(self) -> None:
        parts, owner = self._parts, self._owner
        if self.is_stopping or parts is None or owner is None:
            return
        is_settling = parts.is_settling
        if is_settling and not parts.is_calling:
            parts.settling.hasten()
        due = self._loop.now() + (HASTEN_SECONDS if is_settling else HASTEN_SECONDS * 5)
        drains = parts.drains
        if drains is not None:
            due = min(due, drains.look())
            if drains.is_drained:
                owner.command("drained")
                return
            parts.shorten_polls(LAST_POLL_SECONDS if drains.has_seen_empty else drains.between)
        self._loop.at(due, self._look_at_drain)
