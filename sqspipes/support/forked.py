"""Forked: a process that a function of the user's forks, and that comes back out of it, has no part in the run."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

#: What no iterator yields.
OVER = object()

#: Rises in each forked child: to ask for the process takes five times as long.
_forks = 0


def forks() -> int:
    """Return a number that is another one in a forked child than in its parent."""
    return _forks


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns; a process that it forked ends where it would return, or raise.

    Its exit code is what Python's own would be: it must not hand on, fail or acknowledge what the parent has, too.
    """
    here = _forks
    try:
        made = function(*arguments)
    except BaseException as error:
        if _forks != here:
            _end(error)
        raise
    if _forks != here:
        _end(None)
    return made


def yielded(values: Iterable[Any]) -> Iterator[Any]:
    """Yield what an iterable yields; a process that it forks ends where it would yield, raise or end."""
    iterator = called(iter, values)
    while (value := called(next, iterator, OVER)) is not OVER:
        yield value


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine, or a step of an async generator; a process that it forks ends where it comes back to the loop.

    It comes back as with ``called``, and also where it would wait: the event loop is its parent's. ``here`` is what
    ``forks`` returned where the loop was made, by default what it returns now.
    """

    def __init__(self, coroutine: Any, here: int | None = None) -> None:
        self._coroutine = coroutine
        self._here = _forks if here is None else here

    def send(self, value: Any) -> Any:
        """Run to the next wait."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it waits, and run to the next wait."""
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        """Give it up."""
        called(self._coroutine.close)

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Stepped:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # asyncio shows where a task is by these

    def _step(self, go_on: Callable[..., Any], *arguments: Any) -> Any:
        if _forks != self._here:
            _end(None)  # of something else on the loop, a callback for one, that has come back to it
        try:
            awaited = go_on(*arguments)
        except BaseException as error:
            if _forks != self._here:
                _end(None if isinstance(error, StopIteration | StopAsyncIteration) else error)
            raise
        if _forks != self._here:
            _end(RuntimeError("a forked process cannot await: the event loop is its parent's"))
        return awaited


def _end(error: BaseException | None) -> NoReturn:
    code = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = (error.code or 0) & 0xFF
    elif error is not None:
        with suppress(BaseException):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code)
