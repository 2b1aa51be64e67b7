"""Task: one task's settings, checked once, and its queue names."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqspipes.defaults import (
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    LONGEST_BATCH_WAIT,
    LONGEST_LEASE,
    LONGEST_LINGER,
    MOST_BATCH,
    MOST_PRIORITIES,
    MOST_RATE_DIGITS,
    MOST_WORKERS,
    RATE_SECONDS,
    SHORTEST_LEASE,
)
from sqspipes.errors import OptionError, SignatureError
from sqspipes.messages import queue_names
from sqspipes.support import checks
from sqspipes.support.forked import called
from sqspipes.tasks import callables
from sqspipes.tasks.async_step import AsyncStepCall
from sqspipes.tasks.step import Step, StepCall

#: Keys that a task takes from the client where it has none of its own, with their checks.
INHERITED: Mapping[str, Callable[[str, Any], Any]] = {
    "lease": lambda option, value: checks.checked_seconds(option, value, SHORTEST_LEASE, LONGEST_LEASE),
    "retries": checks.checked_retries,
    "backoff": checks.checked_backoff,
    "non_retryable": checks.checked_exceptions,
    "on_error": lambda option, value: checks.checked_choice(option, value, ("retry", "raise")),
    "strict": checks.checked_bool,
    "linger": lambda option, value: (
        None if value is None else checks.checked_seconds(option, value, 0.0, LONGEST_LINGER)
    ),
}
KEYS = (
    "method",
    "name",
    "args",
    "workers",
    "priorities",
    "interval",
    "rate",
    "batch",
    "batch_wait",
    *INHERITED,
)

Interval = float | Callable[[], float]
Backoff = float | Callable[[int, BaseException], float] | None


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its function, its settings, and the names of its queues.

    ``method`` is a callable, the text ``"package.module:function"``, or None for a task that is only fed and
    watched here. ``retries`` is None for ever. ``interval`` is None for a task without one, ``linger``
    for the broker's own. ``rate`` is in calls a second, None for as many as there are. ``batch`` is None
    for a function that takes one value, else the values that it takes at once, after ``batch_wait`` seconds at most.

    What follows from these is decided once, when the task is made; a method given as text is not imported for it.
    ``is_source``: the clock calls the task, and not a message. That is so for a first task with an interval, and for
    one whose signature takes its args but no value before them. ``kind``: what kind of callable the method is, None
    of a text. ``misfit``: why the callable cannot take what it will be given, or None. ``queues``: one for each
    level, level 0 first; a source has none. ``dead_queue``: that of its dead letters.
    """

    domain: str
    name: str
    index: int
    method: Callable[..., Any] | str | None
    args: tuple[Any, ...] = ()
    workers: int = 1
    priorities: int = 1
    interval: Interval | None = None
    rate: float | None = None
    batch: int | None = None
    batch_wait: float = 1.0
    lease: float = 60.0
    retries: int | None = 8
    backoff: Backoff = None
    non_retryable: tuple[type[BaseException], ...] = ()
    on_error: str = "retry"
    strict: bool = False
    linger: float | None = None
    is_source: bool = field(init=False)
    kind: callables.Kind | None = field(init=False)
    misfit: str | None = field(init=False)
    queues: tuple[str, ...] = field(init=False)
    dead_queue: str = field(init=False)

    def __post_init__(self) -> None:
        decide = partial(object.__setattr__, self)
        known = callable(self.method)
        signature = callables.signature_of(self.method) if callable(self.method) else None
        decide("is_source", self.index == 0 and self._takes_no_value(signature))
        decide("kind", callables.kind_of(self.method) if known else None)
        decide("misfit", self._misfit(self.method, signature) if callable(self.method) else None)
        decide("queues", self._own_queues())
        decide("dead_queue", queue_names.dead_queue(self.domain, self.name))

    def _own_queues(self) -> tuple[str, ...]:
        return () if self.is_source else tuple(map(self.queue, range(self.priorities)))

    def _takes_no_value(self, signature: inspect.Signature | None) -> bool:
        if self.method is None or self.interval is not None:
            return self.method is not None
        if not callable(self.method):
            return False
        return callables.takes(signature, *self.args) and not callables.takes(signature, None, *self.args)

    def _misfit(self, function: Callable[..., Any], signature: inspect.Signature | None) -> str | None:
        """Return why a function cannot take what the pipe will give it, or None."""
        if self.batch is not None and (self.is_source or callables.kind_of(function).is_async):
            which = "a source" if self.is_source else "async"
            return f"task {self.name!r} is {which} and has a batch: allowed is def f(values)"
        if self.is_source and self.rate is not None:
            return f"task {self.name!r} is a source and has a rate: allowed is an interval"
        value = () if self.is_source else ("value",)
        if callables.takes(signature, *value, *self.args):
            return None
        given = ", ".join((*value, *map(repr, self.args)))
        name = getattr(function, "__name__", self.name)
        return f"task {self.name!r}: {name}{signature} cannot take ({given})"

    @property
    def every_queue(self) -> tuple[str, ...]:
        """The names of the task's queues, that of its dead letters last; a source has none."""
        return (*self.queues, self.dead_queue) if self.queues else ()

    def queue(self, level: int) -> str:
        """Return the name of the queue of one level."""
        return queue_names.task_queue(self.domain, self.name, level)

    def level(self, priority: int) -> int:
        """Return a priority lowered to the highest level there is."""
        return max(0, min(priority, self.priorities - 1))

    def function(self) -> Callable[..., Any]:
        """Return the callable, imported if it was given as text."""
        if self.method is None:
            raise OptionError(f"task {self.name!r} has no method: it can be put to and watched, not run")
        return self.method if callable(self.method) else callables.imported(self.name, self.method)

    def check_signature(self) -> None:
        """Raise ``SignatureError`` if the function cannot take what the pipe will give it."""
        misfit = self.misfit
        if not callable(self.method):
            function = self.function()
            misfit = self._misfit(function, callables.signature_of(function))
        if misfit is not None:
            raise SignatureError(misfit)

    def delay(self, attempt: int, error: BaseException) -> float:
        """Return the seconds until the call is repeated after its ``attempt``-th failure (1 is the first)."""
        if self.backoff is None:
            full = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(attempt - 1, 16))
            return random.uniform(full / 2, full)
        seconds = called(self.backoff, attempt, error) if callable(self.backoff) else self.backoff
        return checks.capped_seconds(f"task {self.name!r}: backoff", seconds)

    def next_interval(self) -> float:
        """Return the seconds to the next call of a source."""
        seconds = called(self.interval) if callable(self.interval) else self.interval or 0.0
        return checks.capped_seconds(f"task {self.name!r}: interval", seconds)


# From what users write to Tasks


def make_tasks(domain: str, given: Any, defaults: Mapping[str, Any]) -> tuple[Task, ...]:
    """Return the checked tasks of ``register_tasks``; ``defaults`` has the client's inherited options."""
    if not isinstance(given, list | tuple) or not given:
        raise checks.refuse("tasks", given, "a list of functions and dicts, with at least one")
    tasks: list[Task] = []
    for index, one in enumerate(given):
        task = _make_task(domain, one, index, tasks[-1].priorities if tasks else 1, defaults)
        if any(task.name == other.name for other in tasks):
            raise OptionError(
                f"task {index} is named {task.name!r}, and so is another: give each a name of its own"
            )
        tasks.append(task)
    return tuple(tasks)


def _make_task(domain: str, given: Any, index: int, levels: int, defaults: Mapping[str, Any]) -> Task:
    if callable(given) or isinstance(given, str):
        given = {"method": given}
    if not isinstance(given, Mapping):
        raise checks.refuse(f"task {index}", given, "a function, a Step, 'package.module:function' or a dict")
    method = given.get("method")
    step = method if isinstance(method, type) and issubclass(method, Step) else None
    if step is not None:
        own = {key: getattr(step, key) for key in KEYS if hasattr(step, key)}
        given = {"name": step.label or step.__name__, **own, **given}
    name = _checked_task_name(domain, given, index)
    if step is not None:
        kind = AsyncStepCall if callables.kind_of(step.consume).is_async else StepCall
        given = {**given, "method": kind(step, domain, name)}
    says = f"task {name!r}: "
    for key, value in given.items():
        if key not in KEYS:
            hint = checks.did_you_mean(key, KEYS)
            raise OptionError(
                f"{says}key {key!r} ({value!r}) is not known{hint}: allowed are {', '.join(KEYS)}"
            )
    if index and given.get("interval") is not None:
        raise OptionError(f"{says}interval is {given['interval']!r}: allowed for the first task only")
    return Task(
        domain=domain,
        name=name,
        index=index,
        method=_checked_method(f"{says}method", given.get("method")),
        args=_checked_args(f"{says}args", given.get("args", ())),
        workers=checks.checked_int(f"{says}workers", given.get("workers", 1), 1, MOST_WORKERS),
        priorities=checks.checked_int(
            f"{says}priorities", given.get("priorities", levels), 1, MOST_PRIORITIES
        ),
        interval=_checked_interval(f"{says}interval", given.get("interval")),
        rate=_checked_rate(f"{says}rate", given.get("rate")),
        batch=_checked_batch(f"{says}batch", given.get("batch")),
        batch_wait=checks.checked_seconds(
            f"{says}batch_wait", given.get("batch_wait", 1.0), 0.0, LONGEST_BATCH_WAIT
        ),
        **{key: check(says + key, given.get(key, defaults[key])) for key, check in INHERITED.items()},
    )


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
    name = queue_names.checked_part(f"task {index}: name", name)
    queue_names.checked_length(f"task {index}: name", domain, name)
    return name


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
