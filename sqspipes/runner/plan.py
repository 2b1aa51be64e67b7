"""Plan: what one run is asked to do, and the summary of what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqspipes.runner.calls import Plan

#: Seconds that polls stay open at most beside a process that drains: it is not to wait for them for long.
BESIDE_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended; the rest are counts.

    ``reason`` is ``"drained"``, ``"stopped"`` or ``"signal"``; ``"died"`` where a part or a process died and
    ``"raised"`` where an error of a task ended the run: ``Run.error`` has the error.

    ``done`` calls succeeded, ``failed`` attempts failed, ``dead`` messages became dead letters, in this run.
    """

    reason: str
    done: int
    failed: int
    dead: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is asked to do.

    ``levels`` has the levels to serve per task, ``drain`` is None, or the seconds between two sights of empty
    queues (negative: the broker's own), ``iterate`` names the task whose results are iterated over. ``polls`` is
    how many seconds polls stay open at most, None for as long as the broker lets them. ``control_queue`` has the
    control word in its tags, and is looked at every ``control_interval`` seconds; None for never. ``sizes`` has the
    largest body, in bytes, that each queue takes: no call may have to ask for it.
    """

    plans: Sequence[Plan]
    levels: Mapping[str, list[int]]
    priority: int | Callable[[Any], int]
    drain: float | None
    iterate: str | None
    stop_timeout: float
    polls: float | None = None
    control_queue: str | None = None
    control_interval: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def fed(self) -> list[Plan]:
        """Return the plans of the tasks that messages feed: all but sources."""
        return [plan for plan in self.plans if not plan.task.is_source]

    def beside(self) -> RunPlan:
        """Return what a process does beside one with the whole plan: no sources, no look whether all is through."""
        polls = None
        if self.drain is not None:
            polls = BESIDE_POLL_SECONDS if self.drain < 0 else min(self.drain, BESIDE_POLL_SECONDS)
        return replace(self, plans=self.fed(), drain=None, polls=polls)


def described(plan: Plan) -> str:
    """Return a task as the log shows it."""
    task = plan.task
    interval = ""
    if task.is_source:
        interval = " every so often" if callable(task.interval) else f" every {task.interval or 0:g} s"
    return f"{task.name} ({task.workers} {'worker' if task.workers == 1 else 'workers'}{interval})"
