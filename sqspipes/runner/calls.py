"""One call of a task's function: from a held message to an outcome, with all that the function handed on."""

from __future__ import annotations

import inspect
import json
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqspipes.errors import CodecError, OptionError, SqspipesError
from sqspipes.message import Death, Message, derived, encode_value, output_id, result_id
from sqspipes.results import Output, TaskCallback, ends_line
from sqspipes.runner.executor import DONE, Emission, Ending, Engine, Outcome
from sqspipes.runner.held import Held, Origin
from sqspipes.runner.settler import Abandoned
from sqspipes.task import FIRST_BACKOFF, Task

logger = logging.getLogger(__name__)

#: Bytes of JSON that a dead letter's error may use: its type, its text and its traceback.
TYPE_BYTES, ERROR_BYTES, TRACEBACK_BYTES = 200, 1_500, 5_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run does with one task: the task, its function, the tasks its outputs can go to."""

    task: Task
    function: Callable[..., Any]
    next: Task | None
    tasks: Mapping[str, Task]
    ignore_none: bool
    json_default: Callable[[Any], Any] | None


def perform(plan: Plan, held: Held, engine: Engine) -> Outcome:
    """Call the function for one message and hand its outputs on."""
    message = held.message
    try:
        result = plan.function(message.value, *plan.task.args)
        hand_on(plan, held, message, result, engine)
    except Abandoned:
        raise
    except BaseException as error:  # SystemExit and KeyboardInterrupt of a task are failed attempts too
        return failure(plan.task, held.failures + 1, error)
    return DONE


def hand_on(plan: Plan, origin: Origin, parent: Message, result: Any, engine: Engine) -> None:
    """Emit what a function returned: nothing, one value, or each value of a generator as it comes."""
    if isinstance(result, TaskCallback):
        hand_on(plan, origin, parent, result.result, engine)
        _call_back(result, origin, engine)
    elif inspect.isgenerator(result):
        for value in several(plan, origin, parent, result, engine):
            if isinstance(value, TaskCallback):
                _call_back(value, origin, engine)
    elif not ends_line(result, plan.ignore_none):
        output = as_output(plan, parent, result)
        engine.emit(origin, _emission(plan, output, result_id(parent.id, plan.task.name)))


def several(
    plan: Plan, origin: Origin, parent: Message, values: Iterator[Any], engine: Engine
) -> Iterator[Any]:
    """Emit each value of an iterator and then yield it.

    An output's id is a function of what it is and of how many equal ones came before it, never of its place:
    a generator over a set in another order, or one that fails half-way and runs again, repeats its ids.
    """
    equals: Counter[str] = Counter()
    for value in values:
        plain = value.result if isinstance(value, TaskCallback) else value
        if not ends_line(plain, plan.ignore_none):
            output = as_output(plan, parent, plain)
            text = encode_value(output.value, f"result of {plan.task.name}", plan.json_default)
            content = derived(output.task or "", output.group or "", output.priority or 0, text)
            id = output_id(parent.id, plan.task.name, content, equals[content])
            equals[content] += 1
            engine.emit(origin, _emission(plan, output, id, text))
        yield value


def as_output(plan: Plan, parent: Message, result: Any) -> Output:
    """Return a result with its way filled in: the next task, the parent's group and priority."""
    output = result if isinstance(result, Output) else Output(result)
    if output.task is not None and output.task not in plan.tasks:
        known = ", ".join(plan.tasks)
        raise OptionError(
            f"result of {plan.task.name}: Output's task is {output.task!r}: allowed are {known}"
        )
    target = output.task or (plan.next.name if plan.next else None)
    group = parent.group if output.group is None else str(output.group)
    priority = parent.priority if output.priority is None else output.priority
    return Output(output.value, task=target, group=group, id=output.id, priority=priority)


def failure(task: Task, attempt: int, error: BaseException) -> Outcome:
    """Return what follows from the ``attempt``-th failed call of a message (1 is the first)."""
    if task.on_error == "raise":
        return Outcome(Ending.RAISE, error=error)
    final = task.retries is not None and attempt > task.retries
    if final or isinstance(error, (*task.non_retryable, CodecError, OptionError)):
        return Outcome(Ending.DEAD, death=death(task, error, attempt), error=error)
    return Outcome(Ending.RETRY, delay=safe_delay(task, attempt, error), error=error)


def safe_delay(task: Task, attempt: int, error: BaseException) -> float:
    """Return the task's backoff; a backoff function that fails itself costs a log line, not the message."""
    try:
        return task.delay(attempt, error)
    except Exception as wrong:
        logger.error("backoff of %s failed, %.1f s instead: %s", task.name, FIRST_BACKOFF, describe(wrong))
        return FIRST_BACKOFF


def death(task: Task, error: BaseException, attempts: int) -> Death:
    """Return the reason of a dead letter, cut to what every letter has room for."""
    return Death(
        task=task.name,
        error_type=_cut(name_of(error), TYPE_BYTES),
        error=_cut(said(error), ERROR_BYTES),
        traceback=_cut(formatted(error), TRACEBACK_BYTES, keep_end=True),
        attempts=attempts,
        died=time.time(),
    )


def said(error: BaseException) -> str:
    """Return an error's text, also of one that cannot be printed; what no file could take is escaped."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:
        return "(its text cannot be printed)"


def describe(error: BaseException) -> str:
    """Return an error as one line: its type and its text."""
    text = " ".join(said(error).split())
    return f"{name_of(error)}: {text[:500]}" if text else name_of(error)


def name_of(error: BaseException) -> str:
    """Return the name of an error's class, also of one whose metaclass does not tell it."""
    return str(type.__dict__["__name__"].__get__(type(error)))


def loggable(error: BaseException | None) -> BaseException | None:
    """Return an error if logging can print its traceback: it survives no recursion error and no exit there.

    Nor does a file take half a surrogate pair.
    """
    try:
        "".join(traceback.format_exception(error)).encode()
    except BaseException:
        return None
    return error


def formatted(error: BaseException) -> str:
    """Return an error's traceback as text."""
    if isinstance(error, SqspipesError) and error.__cause__ is None:
        return ""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return describe(error)


def _emission(plan: Plan, output: Output, id: str, text: str | None = None) -> Emission:
    if text is None and output.task is not None:
        text = encode_value(output.value, f"result of {plan.task.name}", plan.json_default)
    return Emission(
        value=output.value,
        text=text,
        id=str(output.id) if output.id is not None else id,
        group=None if output.group is None else str(output.group),
        priority=output.priority or 0,
        task=output.task,
    )


def _call_back(result: TaskCallback, origin: Origin, engine: Engine) -> None:
    engine.flush(origin)
    if origin.refused is None:
        result.callback(*result.callback_args)


def _cut(text: str, most: int, *, keep_end: bool = False) -> str:
    """Return a text whose JSON has at most so many bytes: its beginning, or its end."""
    while (size := len(json.dumps(text))) > most:
        keep = max(1, len(text) * most // size - 8)
        text = "..." + text[-keep:] if keep_end else text[:keep] + "..."
    return text
