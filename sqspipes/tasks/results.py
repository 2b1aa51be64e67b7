"""What a task may return, yield or raise besides plain values and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqspipes.defaults import MOST_PRIORITIES
from sqspipes.errors import OptionError
from sqspipes.messages.ids import checked_name
from sqspipes.messages.values import typename
from sqspipes.support.checks import capped_seconds, checked_int


@dataclass(frozen=True, slots=True)
class Output:
    """A value with its way: where it goes and what travels on.

    ``task`` is the task it goes to (default: the next one), ``group`` its group (default: the input's, or its
    own), ``id`` its id (default: derived from the input's), ``priority`` its level, 0 to 15 (default: the
    input's), lowered to the highest level that the task has.
    """

    value: Any
    task: str | None = field(default=None, kw_only=True)
    group: str | int | None = field(default=None, kw_only=True)
    id: str | int | None = field(default=None, kw_only=True)
    priority: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.value, Output | TaskCallback):
            kind = typename(self.value)
            raise OptionError(
                f"Output: value is {kind}: allowed is a plain value; a TaskCallback may have an Output"
            )
        if self.task is not None and not isinstance(self.task, str):
            raise OptionError(f"Output: task is {self.task!r}: allowed is a task's name")
        if self.task is not None:
            object.__setattr__(self, "task", str.__str__(self.task))
        if self.priority is not None:
            priority = checked_int("Output: priority", self.priority, 0, MOST_PRIORITIES - 1)
            object.__setattr__(self, "priority", priority)
        for name in ("group", "id"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, checked_name(f"Output: {name}", getattr(self, name)))


class EmptyTaskOutput:
    """Ends the line: nothing is handed on. Return the class or an instance."""


class TaskCallback:
    """A result, and a callback that runs once the result is safely handed on.

    The callback, which may be async, runs before the input is acknowledged; when it raises, the call has failed.
    """

    def __init__(self, result: Any, callback: Callable[..., Any], callback_args: Iterable[Any] = ()) -> None:
        if not callable(callback):
            raise OptionError(f"TaskCallback: callback is {callback!r}: allowed is a callable")
        self.result = result
        self.callback = callback
        self.callback_args = tuple(callback_args or ())


class Retry(Exception):  # noqa: N818 - what a task decides, no error
    """Raised by a task: the attempt counts as failed, the next one comes after ``delay`` seconds.

    Without a delay it comes after the task's backoff. One of more than a year counts as a year.
    """

    def __init__(self, delay: float | None = None) -> None:
        self.delay = None if delay is None else capped_seconds("Retry: delay", delay)
        super().__init__("as asked" if delay is None else f"in {delay:g} s, as asked")


class Reject(Exception):  # noqa: N818 - what a task decides, no error
    """Raised by a task: the message becomes a dead letter at once, with this reason."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)


class BatchFailure(Exception):  # noqa: N818 - what a task decides, no error
    """Raised by a batch task: the values at some places failed, the others did not.

    ``errors`` has each one's error by its place in the list, ``results`` one result for each value, or None.
    """

    def __init__(self, errors: Mapping[int, BaseException], results: Sequence[Any] | None = None) -> None:
        given: Any = errors
        good = isinstance(given, Mapping) and given
        if not good or not all(_is_place_and_error(*pair) for pair in given.items()):
            raise OptionError(f"BatchFailure: errors is {errors!r}: allowed is a dict of exceptions by index")
        self.errors = dict(errors)
        self.results = results
        super().__init__(f"{len(self.errors)} of a batch")


def _is_place_and_error(place: Any, error: Any) -> bool:
    return isinstance(place, int) and isinstance(error, BaseException)


def ends_line(value: Any, ignore_none: bool) -> bool:
    """Say whether a result hands nothing on."""
    if value is None:
        return ignore_none
    return isinstance(value, EmptyTaskOutput) or value is EmptyTaskOutput
