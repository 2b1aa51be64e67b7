"""Batch: one call of a task's function for the values of many messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqspipes.calls.held import Held
from sqspipes.calls.outcome import DONE, Abandoned, Ending, Outcome, Outlet
from sqspipes.calls.perform import failed, hand_on, leave_alone, resolved
from sqspipes.support.forked import called
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.results import BatchFailure

#: The outcome of a message that did not fail itself, but one before it in its group did.
BEHIND = Outcome(Ending.BEHIND)


def perform_batch(plan: Plan, helds: Sequence[Held], outlet: Outlet) -> list[Outcome]:
    """Call the function for many messages and hand its outputs on; return an outcome for each.

    The messages of one group stand together, in order. What comes after one that failed is not handed on.
    """
    results: Sequence[Any]
    errors: dict[int, BaseException] = {}
    try:
        made = called(plan.function, [held.message.value for held in helds], *plan.task.args)
        results = _checked(plan, resolved(made, outlet), len(helds))
    except Abandoned:
        raise
    except BatchFailure as error:
        try:
            errors = _checked_errors(plan, error, len(helds))
            results = _checked(plan, error.results, len(helds))
        except TypeError as wrong:
            return [failed(plan, held, outlet, wrong) for held in helds]
    except BaseException as error:
        return [failed(plan, held, outlet, error) for held in helds]
    outcomes: list[Outcome] = []
    blocked: set[tuple[str, str]] = set()
    for place, held in enumerate(helds):
        lane = (held.delivery.queue, held.delivery.group)
        outcome = (
            BEHIND if lane in blocked else _outcome(plan, held, outlet, results[place], errors.get(place))
        )
        leave_alone(results[place])
        if outcome is not DONE:
            blocked.add(lane)
        outcomes.append(outcome)
    return outcomes


def _outcome(plan: Plan, held: Held, outlet: Outlet, result: Any, error: BaseException | None) -> Outcome:
    """Hand on the result of one message, unless it failed."""
    if error is not None:
        return failed(plan, held, outlet, error)
    try:
        hand_on(plan, held, held.message, result, outlet)
    except Abandoned:
        raise
    except BaseException as wrong:
        return failed(plan, held, outlet, wrong)
    return DONE


def _checked(plan: Plan, given: Any, count: int) -> Sequence[Any]:
    """Return one result for each of the messages."""
    if given is None:
        return [None] * count
    if isinstance(given, list | tuple) and len(given) == count:
        return given
    leave_alone(given)
    shown = f"a {type(given).__name__}"
    if isinstance(given, list | tuple):
        shown = f"{shown} of {len(given)}"
    raise TypeError(
        f"result of {plan.task.name} is {shown}: allowed are None and a list of {count}, one for each value"
    )


def _checked_errors(plan: Plan, error: BatchFailure, count: int) -> dict[int, BaseException]:
    """Return the errors by the places of the messages."""
    wrong = [place for place in error.errors if not 0 <= place < count]
    if wrong:
        raise TypeError(
            f"BatchFailure of {plan.task.name} has the index {wrong[0]!r}: allowed is 0 to {count - 1}"
        )
    return error.errors
