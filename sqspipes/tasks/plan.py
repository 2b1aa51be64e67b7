"""Plans: what a run does with one task, and what one run is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqspipes.support.listeners import Listener
from sqspipes.tasks.around import Around, chosen, composed
from sqspipes.tasks.callables import CallableKind, kind_of
from sqspipes.tasks.step import StepCall
from sqspipes.tasks.task import Task

#: Seconds that polls stay open at most beside a process that drains: it is not to wait for them for long.
BESIDE_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does with one task: the task, its function, the tasks its outputs can go to.

    ``function`` has the around functions composed in: ``around`` are those of the client. ``kind`` is what kind of
    callable the task's own function is, ``step`` the step that is called, if it is one.
    """

    task: Task
    function: Callable[..., Any]
    next: Task | None
    tasks: Mapping[str, Task]
    ignore_none: bool
    json_default: Callable[[Any], Any] | None
    around: Sequence[Around] = ()
    kind: CallableKind = field(init=False)
    step: StepCall | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", self.task.kind or kind_of(self.function))
        object.__setattr__(self, "step", self.function if isinstance(self.function, StepCall) else None)
        around = chosen(self.task.name, self.kind, self.around, self.task.around)
        object.__setattr__(self, "function", composed(self.function, around))


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is asked to do.

    ``levels`` has the levels to serve per task, ``drain`` is None, or the seconds between two sights of empty
    queues (negative: the broker's own), ``iterate`` names the task whose results are iterated over. ``polls`` is
    how many seconds polls stay open at most, None for as long as the broker lets them. ``control_queue`` has the
    control word in its tags, and is looked at every ``control_interval`` seconds; None for never. ``sizes`` has the
    largest body, in bytes, that each queue takes: no call may have to ask for it. ``listeners`` are told of events.
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
    listeners: Sequence[Listener] = ()

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
