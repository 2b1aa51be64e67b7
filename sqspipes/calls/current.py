"""Current: the message that a task is being called for, as the task may see it."""

from __future__ import annotations

import time
from contextvars import ContextVar, Token
from dataclasses import dataclass

from sqspipes.calls.held import Held
from sqspipes.errors import NoMessageError
from sqspipes.support.clocks import LeaseClock

_current: ContextVar[tuple[Held, LeaseClock] | None] = ContextVar("sqspipes_message", default=None)


@dataclass(frozen=True, slots=True)
class CurrentMessage:
    """The message that a task is called for.

    ``attempt`` is 1 for the first call. ``group`` is None for a message put without one. ``first_put`` is when the
    first message of its line was put, ``deadline`` when its lease ends unless it is prolonged, as it is while the
    call runs: seconds since the epoch, as of ``time.time()``.
    """

    id: str
    group: str | None
    priority: int
    attempt: int
    first_put: float
    deadline: float


def current_message() -> CurrentMessage:
    """Return the message that the task running in this thread is called for.

    Raises ``NoMessageError`` outside a task, in a source, and in threads that a task has started.
    """
    found = _current.get()
    if found is None:
        raise NoMessageError("current_message() is for tasks: this thread is not called for a message")
    held, clock = found
    message = held.message
    return CurrentMessage(
        id=message.id,
        group=message.group,
        priority=held.level,
        attempt=held.failures + 1,
        first_put=message.first_put,
        deadline=time.time() + held.expires - clock.now(),
    )


def begin(held: Held, clock: LeaseClock) -> Token[tuple[Held, LeaseClock] | None]:
    """Let ``current_message`` return this one in the calling thread, or asyncio task, until the ``end``."""
    return _current.set((held, clock))


def end(token: Token[tuple[Held, LeaseClock] | None]) -> None:
    """Let ``current_message`` return what it did before the ``begin``."""
    _current.reset(token)
