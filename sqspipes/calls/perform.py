"""One call of a task's function: from a held message to an outcome, with all that the function handed on."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from sqspipes.calls import error_text
from sqspipes.calls.entries import as_received
from sqspipes.calls.held import Held, Origin
from sqspipes.calls.outcome import DONE, Abandoned, Emission, Ending, Outcome, Outlet
from sqspipes.defaults import FIRST_BACKOFF, MOST_HOPS
from sqspipes.errors import CodecError, HopLimitError, OptionError
from sqspipes.messages.ids import checked_name, content_of, output_id, result_id
from sqspipes.messages.message import Message
from sqspipes.messages.values import CONTAINERS, encode_value, let_go
from sqspipes.support import lines
from sqspipes.support.compact_json import PLAIN
from sqspipes.support.forked import called, yielded
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.results import Output, Reject, Retry, TaskCallback, ends_line
from sqspipes.tasks.step import Pending
from sqspipes.tasks.task import Task

logger = lines.logger(__name__)

#: Types of most results, none of which is to be awaited.
_READY = PLAIN | CONTAINERS


def perform(plan: Plan, held: Held, outlet: Outlet) -> Outcome:
    """Call the function for one message and hand its outputs on."""
    return conclude(plan, held, outlet, lambda: called(plan.function, held.message.value, *plan.task.args))


def conclude(plan: Plan, held: Held, outlet: Outlet, result: Callable[[], Any]) -> Outcome:
    """Hand on what a call returns; ``result`` returns it, or raises what the call raised."""
    try:
        hand_on(plan, held, held.message, result(), outlet)
    except Abandoned:
        raise
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a task are failed attempts too
        return failed(plan, held, outlet, error)
    return DONE


def failed(plan: Plan, held: Held, outlet: Outlet, error: BaseException) -> Outcome:
    """Return what follows from a failed call; after the last one a step may roll it back."""
    outcome = failure(plan.task, held.failures + 1, error)
    step = plan.step
    if outcome.death is None or step is None or not step.rolls_back:
        return outcome

    def rollback() -> Any:
        return resolved(step.rollback(as_received(held).value), outlet)

    return _rolled_back(plan, held, outlet, outcome, rollback)


def _rolled_back(
    plan: Plan, held: Held, outlet: Outlet, outcome: Outcome, rollback: Callable[[], Any]
) -> Outcome:
    """Let a step take back what its last attempt did: what it hands on instead saves the message."""
    try:
        produced = rollback()
        hand_on(plan, held, held.message, (value for value in produced), outlet, "rollback")
    except Abandoned:
        raise
    except BaseException as error:
        first = outcome.death
        assert first is not None
        text = error_text.cut(
            f"{first.error}; its rollback failed: {error_text.describe(error)}", error_text.ERROR_BYTES
        )
        trace = error_text.cut(error_text.formatted(error), error_text.TRACEBACK_BYTES, keep_end=True)
        return replace(outcome, death=replace(first, error=text, traceback=trace))
    if not produced:
        return outcome
    cause = outcome.error or RuntimeError("failed")
    logger.warning(
        "%s %s failed and was rolled back: %s", plan.task.name, held.message.id, error_text.describe(cause)
    )
    return DONE


def hand_on(
    plan: Plan, origin: Origin, parent: Message, result: Any, outlet: Outlet, kind: str = "output"
) -> None:
    """Emit what a function returned: nothing, one value, or each value of a generator as it comes.

    What is to be awaited is, also where a plain function returned it. ``kind`` is the kind of a generator's outputs,
    as ``output_id`` knows it.
    """
    try:
        if type(result) in _READY:  # nearly always
            _hand_on_plain(plan, origin, parent, result, outlet)
        else:
            _hand_on(plan, origin, parent, resolved(result, outlet), outlet, kind)
    except BaseException:
        leave_alone(result)
        raise


def _hand_on(plan: Plan, origin: Origin, parent: Message, result: Any, outlet: Outlet, kind: str) -> None:
    if isinstance(result, TaskCallback):
        hand_on(plan, origin, parent, result.result, outlet, kind)
        _call_back(result, origin, outlet)
    elif inspect.isgenerator(result):
        values = each(result, outlet)
        try:
            for value in several(plan, origin, parent, values, outlet, kind):
                if isinstance(value, TaskCallback):
                    _call_back(value, origin, outlet)
        finally:
            close(values, f"{plan.task.name} {parent.id}")
    elif not ends_line(result, plan.ignore_none):
        value, way = on_its_way(plan, parent, result)
        value = resolved(value, outlet)
        text = None if way.task is None else _encoded(plan, value)
        id = way.id or result_id(parent.identity, plan.task.name)
        outlet.emit(origin, Emission(value, text, id, way.group, way.priority, way.task), last=True)


def _hand_on_plain(plan: Plan, origin: Origin, parent: Message, result: Any, outlet: Outlet) -> None:
    """Emit one value that goes the usual way."""
    if result is None and plan.ignore_none:
        return
    task = plan.next.name if plan.next else None
    text = None if task is None else _encoded(plan, result)
    id = result_id(parent.identity, plan.task.name)
    outlet.emit(origin, Emission(result, text, id, parent.group, parent.priority, task), last=True)


def several(
    plan: Plan, origin: Origin, parent: Message, values: Iterator[Any], outlet: Outlet, kind: str
) -> Iterator[Any]:
    """Emit each value of an iterator and then yield it.

    An output's id is a function of what it is and of how many equal ones came before it, never of its place:
    a generator over a set in another order, or one that fails half-way and runs again, repeats its ids.
    """
    equals: Counter[str] = Counter()
    for value in values:
        try:
            plain = resolved(value.result, outlet) if isinstance(value, TaskCallback) else value
            if not ends_line(plain, plan.ignore_none):
                output, way = on_its_way(plan, parent, plain)
                output = resolved(output, outlet)
                text = _encoded(plan, output)
                content = content_of(way.task or "", way.group, way.priority, text)
                id, own = way.id, None if way.id is None else content
                if id is None:
                    id = output_id(kind, parent.identity, plan.task.name, content, equals[content])
                    equals[content] += 1
                outlet.emit(origin, Emission(output, text, id, way.group, way.priority, way.task, own))
        except BaseException:
            leave_alone(value)
            raise
        yield value


def resolved(made: Any, outlet: Outlet) -> Any:
    """Return what comes of what a function made: what is to be awaited is, an async generator becomes a plain one."""
    while type(made) not in _READY:
        if isinstance(made, Pending):
            made = made.then(resolved(made.made, outlet))
        elif inspect.isawaitable(made) or isinstance(made, AsyncGenerator):
            made = outlet.awaited(made)
        else:
            break
    return made


def each(values: Iterator[Any], outlet: Outlet) -> Generator[Any, None, None]:
    """Yield what a generator yields, async parts run; when it is closed, the generator is."""
    try:
        for value in yielded(values):
            if isinstance(value, AsyncGenerator):
                yield from each(outlet.awaited(value), outlet)
            else:
                yield resolved(value, outlet)
    finally:
        called(values.close)  # type: ignore[attr-defined]


def close(values: Any, whose: str) -> None:
    """Close a generator that may have been left half-way; what it raises changes nothing, and is logged."""
    try:
        called(values.close)
    except Abandoned:
        raise
    except BaseException as error:
        logger.error("generator of %s failed when it was closed: %s", whose, error_text.describe(error))


def leave_alone(result: Any) -> None:
    """Let go of what a call returned and nobody awaits any more."""
    while isinstance(result, TaskCallback | Output | Pending):
        if isinstance(result, TaskCallback):
            result = result.result
        else:
            result = result.value if isinstance(result, Output) else result.made
    let_go(result)


def passed_on(extra: Mapping[str, Any], here: Task, there: Task) -> Mapping[str, Any]:
    """Return what travels along with an output; the times that its line was sent back are counted in it."""
    if there.index > here.index:
        return extra
    hops = extra.get("hops", 0)
    if not isinstance(hops, int) or hops >= MOST_HOPS:
        raise HopLimitError(f"result of {here.name}: sent back to {there.name} for the {hops + 1:,}th time")
    return {**extra, "hops": hops + 1}


class Way(NamedTuple):
    """Where an output goes; ``id`` is None where the call's own is to be taken."""

    task: str | None
    group: str | None
    priority: int
    id: str | None = None


def on_its_way(plan: Plan, parent: Message, result: Any) -> tuple[Any, Way]:
    """Return a result's value and its way: by itself to the next task, with the parent's group and priority."""
    target = plan.next.name if plan.next else None
    if not isinstance(result, Output):
        return result, Way(target, parent.group, parent.priority)
    if result.task is not None and result.task not in plan.tasks:
        known = ", ".join(plan.tasks)
        raise OptionError(
            f"result of {plan.task.name}: Output's task is {result.task!r}: allowed are {known or 'none'}"
        )
    group = parent.group if result.group is None else checked_name("Output: group", result.group)
    priority = parent.priority if result.priority is None else result.priority
    id = None if result.id is None else checked_name("Output: id", result.id)
    return result.value, Way(result.task or target, group, priority, id)


def failure(task: Task, attempt: int, error: BaseException) -> Outcome:
    """Return what follows from the ``attempt``-th failed call of a message (1 is the first)."""
    decided = isinstance(error, Retry | Reject)
    final = task.retries is not None and attempt > task.retries
    ends = isinstance(error, (*task.non_retryable, CodecError, OptionError, HopLimitError, Reject))
    ending, delay, reason = Ending.RETRY, 0.0, None
    if task.on_error == "raise" and not decided:
        ending = Ending.RAISE
    elif final or ends:
        ending, reason = Ending.DEAD, error_text.death(task, error, attempt)
    elif isinstance(error, Retry) and error.delay is not None:
        delay = error.delay
    else:
        delay = safe_delay(task, attempt, error)
    is_shown = ending is Ending.DEAD or logger.isEnabledFor(logging.DEBUG)
    shown = error_text.loggable(error) if is_shown else None
    return Outcome(ending, delay, reason, error, error_text.describe(error), shown)


def safe_delay(task: Task, attempt: int, error: BaseException) -> float:
    """Return the task's backoff; a backoff function that fails itself costs a log line, not the message."""
    try:
        return task.delay(attempt, error)
    except Exception as wrong:
        logger.error(
            "backoff of %s failed, %.1f s instead: %s", task.name, FIRST_BACKOFF, error_text.describe(wrong)
        )
        return FIRST_BACKOFF


def _encoded(plan: Plan, value: Any) -> str:
    return encode_value(value, f"result of {plan.task.name}", plan.json_default)


def _call_back(result: TaskCallback, origin: Origin, outlet: Outlet) -> None:
    outlet.flush(origin)
    if origin.refused is None:
        made = resolved(called(result.callback, *result.callback_args), outlet)
        if inspect.isgenerator(made):
            for _ in each(made, outlet):
                pass
