"""Current: the message that a task is being called for, as the task may see it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Protocol

from sqspipes.errors import NoMessageError
from sqspipes.messages.message import Message
from sqspipes.support.clocks import LeaseClock


class HeldMessage(Protocol):
    """A message that this process holds: what ``current_message`` tells of it."""

    message: Message
    level: int
    failures: int
    expires: float  #: when its lease ends, on the lease clock


#: The messages of a call, the lease clock, and whether the call is one of a batch.
_Called = tuple[Sequence[HeldMessage], LeaseClock, bool]

_current: ContextVar[_Called | None] = ContextVar("sqspipes_message", default=None)


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

    Raises ``NoMessageError`` outside a task, in a source, in a task with a batch, and in threads that a task has
    started.
    """
    called = _current.get()
    if called is None or called[2]:
        raise NoMessageError("current_message() is for tasks: this thread is not called for a message")
    helds, clock, _ = called
    return _seen(helds[0], clock)


def called_for() -> CurrentMessage | tuple[CurrentMessage, ...] | None:
    """Return what this thread is called for: a message, the messages of a batch, or None in a source."""
    called = _current.get()
    if called is None:
        return None
    helds, clock, is_batch = called
    return tuple(_seen(held, clock) for held in helds) if is_batch else _seen(helds[0], clock)


def begin(
    helds: Sequence[HeldMessage], clock: LeaseClock, *, is_batch: bool = False
) -> Token[_Called | None]:
    """Let the calling thread, or asyncio task, be called for these messages until the ``end``."""
    return _current.set((helds, clock, is_batch))


def end(token: Token[_Called | None]) -> None:
    """Let ``current_message`` return what it did before the ``begin``."""
    _current.reset(token)


def _seen(held: HeldMessage, clock: LeaseClock) -> CurrentMessage:
    message = held.message
    return CurrentMessage(
        id=message.id,
        group=message.group,
        priority=held.level,
        attempt=held.failures + 1,
        first_put=message.first_put,
        deadline=time.time() + held.expires - clock.now(),
    )
