"""Prioritized: what a source makes, each value with the level that ``priority=`` gives it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sqspipes.calls import perform
from sqspipes.calls.outcome import Outlet
from sqspipes.defaults import MOST_PRIORITIES
from sqspipes.support.checks import checked_int
from sqspipes.support.forked import called
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.results import Output, TaskCallback, ends_line


def prioritized(plan: Plan, made: Any, level_of: Callable[[Any], Any] | None, outlet: Outlet) -> Any:
    """Return what a source made, each value that goes on with the level that ``level_of`` gives it."""
    if level_of is None:
        return made
    made = perform.resolved(made, outlet)
    if isinstance(made, TaskCallback):
        result = prioritized(plan, made.result, level_of, outlet)
        return TaskCallback(result, made.callback, made.callback_args)
    if inspect.isgenerator(made):
        return _each_prioritized(plan, made, level_of, outlet)
    if ends_line(made, plan.ignore_none):
        return made
    output = made if isinstance(made, Output) else Output(made)
    if output.priority is not None:
        return output
    said = f"priority of what {plan.task.name} returned"
    return replace(output, priority=checked_int(said, called(level_of, output.value), 0, MOST_PRIORITIES - 1))


def _each_prioritized(
    plan: Plan, values: Any, level_of: Callable[[Any], Any], outlet: Outlet
) -> Iterator[Any]:
    with contextlib.closing(perform.each(values, outlet)) as each:
        for value in each:
            yield prioritized(plan, value, level_of, outlet)
