"""Pipe: a client's tasks, and what ``run`` and ``start`` are asked for, checked and made into the plan of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqspipes.defaults import MOST_PRIORITIES, MOST_WORKERS
from sqspipes.errors import OptionError
from sqspipes.support import checks
from sqspipes.tasks.around import Around
from sqspipes.tasks.plan import Plan, RunPlan
from sqspipes.tasks.task import Task

TaskName = str | int


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The arguments of ``run``, as they were given."""

    task_name: TaskName | Sequence[TaskName] | None
    args: Sequence[Any] | None
    priority: int | Callable[[Any], int]
    iterate: bool
    workers: int | None
    min_priority: int | None
    max_priority: int | None
    drain: bool | float
    stop_timeout: float | None = None
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Pipe:
    """A client's tasks, in order, what holds for each of their calls, and where the last one's results go."""

    tasks: tuple[Task, ...] = ()
    ignore_none: bool = True
    json_default: Callable[[Any], Any] | None = None
    output: Task | None = None
    around: Sequence[Around] = ()

    @property
    def everything(self) -> tuple[Task, ...]:
        """The tasks, and the output if it has a queue of ours, too."""
        return (*self.tasks, *(output for output in self._outputs if output.queues))

    @property
    def control_queue(self) -> str | None:
        """The queue whose tags are the control word: level 0 of the first task that has a queue."""
        return next((task.queue(0) for task in self.tasks if task.queues), None)

    @property
    def reachable(self) -> dict[str, Task]:
        """What a result can go to, by name: all but a source, which takes no value and has no queue."""
        return {task.name: task for task in (*self.tasks, *self._outputs) if not task.is_source}

    @property
    def _outputs(self) -> tuple[Task, ...]:
        return () if self.output is None else (self.output,)

    def named(self, name_or_index: TaskName) -> Task:
        """Return a task, by its name or its place."""
        if not self.tasks:
            raise OptionError("no tasks are registered: call register_tasks first")
        known = [task.name for task in self.tasks]
        if isinstance(name_or_index, int) and not isinstance(name_or_index, bool):
            if -len(known) <= name_or_index < len(known):
                return self.tasks[name_or_index]
        elif name_or_index in known:
            return self.tasks[known.index(name_or_index)]
        hint = checks.did_you_mean(name_or_index, known)
        raise OptionError(f"task {name_or_index!r} is not registered{hint}: there are {', '.join(known)}")

    def fed(self, name_or_index: TaskName) -> Task:
        """Return a task that takes values, by its name or its place."""
        task = self.named(name_or_index)
        if task.is_source:
            raise OptionError(f"task {task.name!r} is a source, the clock calls it: it takes no value")
        return task

    def plan(self, task: Task) -> Plan:
        """Return what a run does with a task, which may have other settings here than where it was registered."""
        return Plan(
            task=task,
            function=task.function(),
            next=self.tasks[task.index + 1] if task.index + 1 < len(self.tasks) else self.output,
            tasks=self.reachable,
            ignore_none=self.ignore_none,
            json_default=self.json_default,
            around=self.around,
        )

    def run_plan(self, options: RunOptions, stop_timeout: float) -> RunPlan:
        """Check all that a run is asked for, and return it as a plan."""
        chosen = self._with_changes(self._chosen(options.task_name), options)
        if not callable(options.priority):
            checked_priority(options.priority)
        levels = {task.name: _levels(task, options.min_priority, options.max_priority) for task in chosen}
        plans = [self.plan(task) for task in chosen]
        for task in chosen:
            task.check_signature()
        return RunPlan(
            plans=plans,
            levels=levels,
            priority=options.priority,
            drain=_checked_drain(options.drain),
            iterate=chosen[-1].name if checks.checked_bool("iterate", options.iterate) else None,
            stop_timeout=_checked_stop(options.stop_timeout, stop_timeout),
            control_queue=self.control_queue,
        )

    def _chosen(self, task_name: TaskName | Sequence[TaskName] | None) -> list[Task]:
        """Return the tasks to run, in the order of the pipe."""
        if task_name is None:
            self.named(0)
            chosen = [task for task in self.tasks if task.method is not None]
        elif isinstance(task_name, str | int):
            chosen = [self.named(task_name)]
        elif not isinstance(task_name, Iterable):
            raise checks.refuse("task_name", task_name, "a name, an index, or a list of them")
        else:
            found = {self.named(name).index for name in task_name}
            chosen = [self.tasks[index] for index in sorted(found)]
        if not chosen:
            raise checks.refuse("task_name", task_name, "a task with a method, or several")
        return chosen

    @staticmethod
    def _with_changes(chosen: list[Task], options: RunOptions) -> list[Task]:
        changes: Mapping[str, Any] = {}
        if options.args is not None:
            if len(chosen) > 1:
                raise OptionError(
                    "args replaces one task's arguments: for several tasks give each its key 'args'"
                )
            changes = {"args": tuple(options.args)}
        if options.workers is not None:
            changes = {**changes, "workers": checks.checked_int("workers", options.workers, 1, MOST_WORKERS)}
        return [replace(task, **changes) for task in chosen]


def checked_priority(priority: Any) -> int:
    """Return the priority of what a source produces."""
    return checks.checked_int("priority", priority, 0, MOST_PRIORITIES - 1)


def _checked_drain(drain: Any) -> float | None:
    if isinstance(drain, bool):
        return -1.0 if drain else None
    return checks.checked_seconds("drain", drain)


def _checked_stop(stop_timeout: Any, default: float) -> float:
    return default if stop_timeout is None else checks.checked_seconds("stop_timeout", stop_timeout)


def _levels(task: Task, low: Any, high: Any) -> list[int]:
    """Return the levels of a task that are to be served."""
    most = MOST_PRIORITIES - 1
    first = 0 if low is None else checks.checked_int("min_priority", low, 0, most)
    last = most if high is None else checks.checked_int("max_priority", high, 0, most)
    levels = [level for level in range(task.priorities) if first <= level <= last]
    if not levels and not task.is_source:
        has = f"task {task.name!r} has levels 0 to {task.priorities - 1}"
        raise OptionError(f"min_priority is {low!r} and max_priority {high!r}: {has}")
    return levels
