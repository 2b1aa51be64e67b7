"""Registration: the table of a task's options, and tasks made of what users write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqspipes import defaults
from sqspipes.defaults import (
    BATCH_WAIT,
    LEASE,
    LONGEST_BATCH_WAIT,
    LONGEST_LEASE,
    LONGEST_LINGER,
    MOST_BATCH,
    MOST_PRIORITIES,
    MOST_RATE_DIGITS,
    MOST_WORKERS,
    ON_ERROR,
    ON_ERRORS,
    PRIORITIES,
    RATE_SECONDS,
    RETRIES,
    STRICT,
    WORKERS,
)
from sqspipes.errors import OptionError
from sqspipes.messages import queue_names
from sqspipes.support import checks
from sqspipes.tasks import callables
from sqspipes.tasks.around import Around, checked_around, chosen
from sqspipes.tasks.async_step import AsyncStepCall
from sqspipes.tasks.step import Step, StepCall
from sqspipes.tasks.task import Task

# Checks of single options

_checked_name = queue_names.checked_part


def _checked_method(option: str, method: Any) -> Any:
    if method is None or callable(method):
        return method
    if isinstance(method, str) and all(part.strip() for part in method.partition(":")):
        return method
    raise checks.refuse(option, method, "a callable or 'package.module:function'")


def _checked_args(option: str, args: Any) -> tuple[Any, ...]:
    if isinstance(args, list | tuple):
        return tuple(args)
    raise checks.refuse(option, args, "a tuple")


def _checked_batch(option: str, batch: Any) -> int | None:
    return None if batch is None else checks.checked_int(option, batch, 1, MOST_BATCH)


def _checked_rate(option: str, rate: Any) -> float | None:
    """Return the calls a second of a text like ``"100/m"``."""
    if rate is None:
        return None
    number, slash, unit = rate.partition("/") if isinstance(rate, str) else ("", "", "")
    decimal = number.isascii() and number.isdecimal() and len(number) <= MOST_RATE_DIGITS
    if not (slash and decimal and int(number) and unit in RATE_SECONDS):
        raise checks.refuse(option, rate, "a number of calls per s, m, h or d, '100/m' for one")
    return int(number) / RATE_SECONDS[unit]


def _checked_interval(option: str, interval: Any) -> Any:
    if interval is None or callable(interval):
        return interval
    return checks.checked_seconds(option, interval)


def _checked_lease(option: str, lease: Any) -> float:
    return checks.checked_seconds(option, lease, defaults.SHORTEST_LEASE, LONGEST_LEASE)


def _checked_linger(option: str, linger: Any) -> float | None:
    return None if linger is None else checks.checked_seconds(option, linger, 0.0, LONGEST_LINGER)


# The table


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a task.

    ``check(option, value)`` returns the value to keep; ``option`` is the name that an error shows. ``default`` holds
    if the task says nothing, and for an ``inherited`` option if the client says nothing either. ``doc`` is the text
    in the tables of README and guide.
    """

    name: str
    check: Callable[[str, Any], Any]
    default: Any
    doc: str
    inherited: bool = False


OPTIONS = (
    Option(
        "method", _checked_method, None, 'a callable, ``async`` too, a Step, or ``"package.module:function"``'
    ),
    Option("name", _checked_name, None, "default: the callable's name"),
    Option("args", _checked_args, (), "further arguments of the callable, after the value"),
    Option(
        "workers",
        partial(checks.checked_int, low=1, high=MOST_WORKERS),
        WORKERS,
        f"calls at once in each process, 1 to {MOST_WORKERS:,}",
    ),
    Option(
        "priorities",
        partial(checks.checked_int, low=1, high=MOST_PRIORITIES),
        PRIORITIES,
        f"levels, 1 to {MOST_PRIORITIES}; 0 is the lowest; default: as many as the task before, 1 for the first one",
    ),
    Option(
        "interval",
        _checked_interval,
        None,
        "of a first task that makes its values itself: seconds between two calls, or a callable that returns them",
    ),
    Option(
        "rate",
        _checked_rate,
        None,
        'of a task that is fed: ``"100/m"``, so many calls at most in each process, per ``s``, ``m``, ``h`` or ``d``',
    ),
    Option(
        "batch",
        _checked_batch,
        None,
        f"values of one call, as a list, 1 to {MOST_BATCH:,}; default: one, by itself",
    ),
    Option(
        "batch_wait",
        partial(checks.checked_seconds, low=0.0, high=LONGEST_BATCH_WAIT),
        BATCH_WAIT,
        f"seconds, 0 to {LONGEST_BATCH_WAIT:g}, that a batch waits to be full",
    ),
    Option(
        "lease",
        _checked_lease,
        LEASE,
        "seconds until the work of a dead process is handed out again, "
        f"{defaults.SHORTEST_LEASE:g} to {LONGEST_LEASE:g}; kept up while a call runs",
        inherited=True,
    ),
    Option(
        "retries",
        checks.checked_retries,
        RETRIES,
        "calls after the first that failed; ``None`` never gives up",
        inherited=True,
    ),
    Option(
        "backoff",
        checks.checked_backoff,
        None,
        "seconds before a retry, or a callable of (attempt, error); "
        "default: 1 s, doubling, 300 s at most, with jitter",
        inherited=True,
    ),
    Option(
        "non_retryable",
        checks.checked_exceptions,
        (),
        "exceptions that make a dead letter at once",
        inherited=True,
    ),
    Option(
        "on_error",
        partial(checks.checked_choice, choices=ON_ERRORS),
        ON_ERROR,
        '``"raise"`` stops the run at the first error and raises it in the caller',
        inherited=True,
    ),
    Option(
        "strict",
        checks.checked_bool,
        STRICT,
        "``True``: a lower level is served only when the higher ones are empty; else it has one call in ten "
        "beside busy higher ones",
        inherited=True,
    ),
    Option(
        "linger",
        _checked_linger,
        None,
        f"seconds, 0 to {LONGEST_LINGER:g}, that a message may wait at a hop for a request to fill; "
        "default: the broker's own, 0.05 on SQS and 0 on the others",
        inherited=True,
    ),
    Option(
        "around",
        checked_around,
        (),
        "a function of (call_next, message) around each call of the task, or a list of them, the outermost first",
    ),
)

KEYS = tuple(option.name for option in OPTIONS)
DEFAULTS = {option.name: option.default for option in OPTIONS}


def inherited(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that tasks take from their client, checked."""
    return {
        option.name: option.check(option.name, given[option.name]) for option in OPTIONS if option.inherited
    }


# From what users write to tasks


def make_tasks(
    domain: str, given: Any, defaults: Mapping[str, Any], around: Sequence[Around] = ()
) -> tuple[Task, ...]:
    """Return the checked tasks of ``register_tasks``.

    ``defaults`` has the client's inherited options, ``around`` its own around functions.
    """
    if not isinstance(given, list | tuple) or not given:
        raise checks.refuse("tasks", given, "a list of functions and dicts, with at least one")
    tasks: list[Task] = []
    for index, one in enumerate(given):
        before = {"priorities": tasks[-1].priorities} if tasks else {}
        task = _make_task(domain, one, index, {**DEFAULTS, **defaults, **before})
        if any(task.name == other.name for other in tasks):
            raise OptionError(
                f"task {index} is named {task.name!r}, and so is another: give each a name of its own"
            )
        if task.kind is not None:  # that of a text is known when it is imported
            chosen(task.name, task.kind, around, task.around)
        tasks.append(task)
    return tuple(tasks)


def _make_task(domain: str, given: Any, index: int, defaults: Mapping[str, Any]) -> Task:
    if callable(given) or isinstance(given, str):
        given = {"method": given}
    if not isinstance(given, Mapping):
        raise checks.refuse(f"task {index}", given, "a function, a Step, 'package.module:function' or a dict")
    method = given.get("method")
    step = method if isinstance(method, type) and issubclass(method, Step) else None
    if step is not None:
        own = {key: getattr(step, key) for key in KEYS if hasattr(step, key)}
        given = {"name": step.label or step.__name__, **own, **given}
    called_so = given.get("name") or getattr(given.get("method"), "__name__", index)
    _check_keys(f"task {called_so!r}: ", given)
    name = _checked_task_name(domain, given, index)
    if step is not None:
        kind = AsyncStepCall if callables.kind_of(step.consume).is_async else StepCall
        given = {**given, "method": kind(step, domain, name)}
    says = f"task {name!r}: "
    if index and given.get("interval") is not None:
        raise OptionError(f"{says}interval is {given['interval']!r}: allowed for the first task only")
    return Task(
        domain=domain,
        name=name,
        index=index,
        **{
            option.name: option.check(says + option.name, given.get(option.name, defaults[option.name]))
            for option in OPTIONS
            if option.name != "name"
        },
    )


def _check_keys(says: str, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key not in KEYS:
            hint = checks.did_you_mean(key, KEYS)
            raise OptionError(
                f"{says}key {key!r} ({value!r}) is not known{hint}: allowed are {', '.join(KEYS)}"
            )
    _checked_method(f"{says}method", given.get("method"))


def _checked_task_name(domain: str, given: Mapping[str, Any], index: int) -> str:
    method, name = given.get("method"), given.get("name")
    if name is None and isinstance(method, str):
        name = method.rpartition(":")[2].rpartition(".")[2]
    elif name is None:
        name = getattr(method, "__name__", None)
    if name is None:
        raise OptionError(f"task {index} has no name: give it one, {{'name': ...}}")
    if name == "<lambda>":
        raise OptionError(f"task {index} is a lambda, which has no name: give it one, {{'name': ...}}")
    name = _checked_name(f"task {index}: name", name)
    queue_names.checked_length(f"task {index}: name", domain, name)
    return name
