"""Plan: what one run is asked to do, and the summary of what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqspipes.runner.calls import Plan


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: ``reason`` is ``"drained"``, ``"stopped"`` or ``"signal"``; the rest are counts.

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
    queues (negative: the broker's own), ``iterate`` names the task whose results are iterated over.
    """

    plans: Sequence[Plan]
    levels: Mapping[str, list[int]]
    priority: int | Callable[[Any], int]
    drain: float | None
    iterate: str | None
    stop_timeout: float


def described(plan: Plan) -> str:
    """Return a task as the log shows it."""
    task = plan.task
    interval = ""
    if task.is_source():
        interval = " every so often" if callable(task.interval) else f" every {task.interval or 0:g} s"
    return f"{task.name} ({task.workers} {'worker' if task.workers == 1 else 'workers'}{interval})"
