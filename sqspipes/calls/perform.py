"""One call of a task's function: from a held message to an outcome. The outputs of the call go to an outlet."""

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

#: The types of most results. A result of these types is not to be awaited.
_READY = PLAIN | CONTAINERS


def perform(plan: Plan, held: Held, outlet: Outlet) -> Outcome:
    """Call the function for one message, hand its outputs on, and return the outcome."""
    return conclude(plan, held, outlet, lambda: called(plan.function, held.message.value, *plan.task.args))


def conclude(plan: Plan, held: Held, outlet: Outlet, result: Callable[[], Any]) -> Outcome:
    """Hand on the result of a call; return the outcome. ``result`` returns the result, or raises the call's error."""
    try:
        hand_on(plan, held, held.message, result(), outlet)
    except Abandoned:
        raise
    except BaseException as error:  # A task's SystemExit or KeyboardInterrupt is a failed attempt, too.
        return failed(plan, held, outlet, error)
    return DONE


def failed(plan: Plan, held: Held, outlet: Outlet, error: BaseException) -> Outcome:
    """Return the outcome of a failed call; if it was the last attempt, let a step roll back first."""
    outcome = failure(plan.task, held.failures + 1, error)
    step = plan.step
    if outcome.death is None or step is None or not step.rolls_back:
        return outcome

    def rollback() -> Any:
        # The value is read anew from the body, as the call may have changed it.
        return resolved(step.rollback(as_received(held).value), outlet)

    return _rolled_back(plan, held, outlet, outcome, rollback)


def _rolled_back(
    plan: Plan, held: Held, outlet: Outlet, outcome: Outcome, rollback: Callable[[], Any]
) -> Outcome:
    """Call the rollback of a step. If the rollback produces values, they are handed on, and the message is done."""
    try:
        produced = rollback()
        # As a generator, so that each value is an output of its own.
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
    """Emit the result of a function: nothing, one value, or each value of a generator as it comes.

    An awaitable is awaited, even if a plain function returned it. ``kind`` is the ``kind`` of ``output_id``, for the
    outputs of a generator.
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
    """Emit one plain value, to the next task, with the parent's group and priority."""
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

    Within a call, the derived id of an output depends on its content and on how many equal outputs came before it,
    never on its place. So a generator over a set in another order, or one that runs again after a failure, makes the
    same ids again.
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
                # An id that the task gave says nothing of the content, so the content goes along.
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
    """Return the result of a function, awaited if it is an awaitable; an async generator becomes a plain one."""
    while type(made) not in _READY:
        if isinstance(made, Pending):
            made = made.then(resolved(made.made, outlet))
        elif inspect.isawaitable(made) or isinstance(made, AsyncGenerator):
            made = outlet.awaited(made)
        else:
            break
    return made


def each(values: Iterator[Any], outlet: Outlet) -> Generator[Any, None, None]:
    """Yield the values of a generator, awaited where needed; to close this generator closes the given one."""
    try:
        for value in yielded(values):
            if isinstance(value, AsyncGenerator):
                yield from each(outlet.awaited(value), outlet)
            else:
                yield resolved(value, outlet)
    finally:
        called(values.close)  # type: ignore[attr-defined]


def close(values: Any, whose: str) -> None:
    """Close a generator that may not have run to its end; an error of it is logged and changes nothing."""
    try:
        called(values.close)
    except Abandoned:
        raise
    except BaseException as error:
        logger.error("generator of %s failed when it was closed: %s", whose, error_text.describe(error))


def leave_alone(result: Any) -> None:
    """Close the coroutines in a result that nobody will await, so that Python does not warn of them."""
    while isinstance(result, TaskCallback | Output | Pending):
        if isinstance(result, TaskCallback):
            result = result.result
        else:
            result = result.value if isinstance(result, Output) else result.made
    let_go(result)


def passed_on(extra: Mapping[str, Any], here: Task, there: Task) -> Mapping[str, Any]:
    """Return the unknown keys that travel on with an output.

    ``hops`` among them counts how often outputs were sent back, to their own task or an earlier one. Above
    ``MOST_HOPS``, and where ``hops`` is no number, raise ``HopLimitError``.
    """
    if there.index > here.index:
        return extra
    hops = extra.get("hops", 0)
    if not isinstance(hops, int):  # another program wrote it
        raise HopLimitError(
            f"result of {here.name}: sent back to {there.name} with hops {hops!r:.80}, no count"
        )
    if hops >= MOST_HOPS:
        raise HopLimitError(f"result of {here.name}: sent back to {there.name} for the {hops + 1:,}th time")
    return {**extra, "hops": hops + 1}


class Way(NamedTuple):
    """Where an output goes. ``task`` None is the end of the pipe. ``id`` None: the id is derived from the parent."""

    task: str | None
    group: str | None
    priority: int
    id: str | None = None


def on_its_way(plan: Plan, parent: Message, result: Any) -> tuple[Any, Way]:
    """Return the value of a result and its way; by default to the next task, with the parent's group and priority."""
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
    """Return the outcome of the ``attempt``-th failed call of a message (1 is the first)."""
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
    """Return the task's backoff in seconds; if its backoff function fails, log that and return ``FIRST_BACKOFF``."""
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
    if origin.refused is None:  # A callback runs only when the result is safe.
        made = resolved(called(result.callback, *result.callback_args), outlet)
        if inspect.isgenerator(made):
            for _ in each(made, outlet):
                pass
