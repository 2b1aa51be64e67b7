"""Around: functions of users around each call of a task, composed with its function once, when a plan is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from sqspipes.errors import OptionError
from sqspipes.support import checks
from sqspipes.tasks.callables import CallableKind, kind_of
from sqspipes.tasks.current import CurrentMessage, called_for

#: What an around function is told of the call: its message; the messages of a batch; None for a source.
CalledFor: TypeAlias = CurrentMessage | tuple[CurrentMessage, ...] | None

#: A function of (call_next, message). ``call_next()`` makes the call and returns its result.
Around: TypeAlias = Callable[[Callable[[], Any], CalledFor], Any]


def checked_around(option: str, given: Any) -> tuple[Around, ...]:
    """Return the around functions of a client or of a task, the outermost first."""
    return checks.checked_callables(option, given, "a callable of (call_next, message)")


def chosen(
    task: str, kind: CallableKind, of_client: Sequence[Around], of_task: Sequence[Around]
) -> tuple[Around, ...]:
    """Return the functions that stand around a task, the outermost first.

    Of a client's functions those are taken that are of the task's kind: what is to stand around an ``async def`` has
    to await it, and around a generator to iterate over it. Raises ``OptionError`` where there is none of that kind,
    or where a task's own is of another one.
    """
    fitting = tuple(function for function in of_client if kind_of(function) == kind)
    if of_client and not fitting:
        names = ", ".join(map(_name, of_client))
        raise OptionError(
            f"task {task!r} is {_described(kind)}, and none of the client's around functions is ({names}): "
            f"allowed is one of each kind of task, here {_example(kind)}"
        )
    for function in of_task:
        if kind_of(function) != kind:
            raise OptionError(
                f"task {task!r} is {_described(kind)}, and its around function {_name(function)} is "
                f"{_described(kind_of(function))}: allowed is {_example(kind)}"
            )
    return (*fitting, *of_task)


def composed(function: Callable[..., Any], around: Sequence[Around]) -> Callable[..., Any]:
    """Return a function that calls ``function`` through all of ``around``; without any it is the function itself."""
    for one in reversed(around):
        function = partial(_through, one, function)
    return function


def _through(around: Around, function: Callable[..., Any], *args: Any) -> Any:
    return around(partial(function, *args), called_for())


def _name(function: Around) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def _described(kind: CallableKind) -> str:
    if kind.is_async:
        return "an async generator function" if kind.yields else "async def"
    return "a generator function" if kind.yields else "def"


def _example(kind: CallableKind) -> str:
    what = "async def" if kind.is_async else "def"
    if not kind.yields:
        result = "await call_next()" if kind.is_async else "call_next()"
        return f"'{what} around(call_next, message): return {result}'"
    if kind.is_async:
        return f"'{what} around(call_next, message): async for value in call_next(): yield value'"
    return f"'{what} around(call_next, message): yield from call_next()'"
