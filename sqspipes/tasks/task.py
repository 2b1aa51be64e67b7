"""Task: one task's settings, and what follows from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqspipes.defaults import (
    BATCH_WAIT,
    FIRST_BACKOFF,
    LEASE,
    LONGEST_BACKOFF,
    ON_ERROR,
    PRIORITIES,
    RETRIES,
    STRICT,
    WORKERS,
)
from sqspipes.errors import OptionError, SignatureError
from sqspipes.messages import queue_names
from sqspipes.support import checks
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.support.forked import called
from sqspipes.tasks import callables
from sqspipes.tasks.around import Around

_BACKOFF = ExponentialBackoff(FIRST_BACKOFF, LONGEST_BACKOFF, jitter=0.5)

Interval = float | Callable[[], float]
Backoff = float | Callable[[int, BaseException], float] | None


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its function, its settings, and the names of its queues.

    ``method`` is a callable, the text ``"package.module:function"``, or None for a task that is only fed and
    watched here. ``retries`` is None for ever. ``interval`` is None for a task without one, ``linger``
    for the broker's own. ``rate`` is in calls a second, None for as many as there are. ``batch`` is None
    for a function that takes one value, else the values that it takes at once, after ``batch_wait`` seconds at most.
    ``around`` are the functions that stand around each call, inside those of the client, the outermost first.

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
    workers: int = WORKERS
    priorities: int = PRIORITIES
    interval: Interval | None = None
    rate: float | None = None
    batch: int | None = None
    batch_wait: float = BATCH_WAIT
    lease: float = LEASE
    retries: int | None = RETRIES
    backoff: Backoff = None
    non_retryable: tuple[type[BaseException], ...] = ()
    on_error: str = ON_ERROR
    strict: bool = STRICT
    linger: float | None = None
    around: tuple[Around, ...] = ()
    is_source: bool = field(init=False)
    kind: callables.CallableKind | None = field(init=False)
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
            return _BACKOFF.seconds(attempt)
        seconds = called(self.backoff, attempt, error) if callable(self.backoff) else self.backoff
        return checks.capped_seconds(f"task {self.name!r}: backoff", seconds)

    def next_interval(self) -> float:
        """Return the seconds to the next call of a source."""
        seconds = called(self.interval) if callable(self.interval) else self.interval or 0.0
        return checks.capped_seconds(f"task {self.name!r}: interval", seconds)
