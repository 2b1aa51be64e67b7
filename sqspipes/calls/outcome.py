"""Outcome: a call to come, what it hands on, and how it ends."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

from sqspipes.calls.held import Held, Origin
from sqspipes.messages.message import Death


class Abandoned(BaseException):
    """Raised into a call that is still running when its run has given it up: what it emits changes nothing."""


class Call(NamedTuple):
    """One call to come: one or more messages of one task."""

    messages: tuple[Held, ...]


class Emission(NamedTuple):
    """One output: where it goes and under which id.

    ``text`` is the value's JSON, or None where nobody needs it. ``task`` None is the end of the line. ``content`` is
    that of one of several outputs whose id is the task's own, and so says nothing of it.
    """

    value: Any
    text: str | None
    id: str
    group: str | None
    priority: int
    task: str | None
    content: str | None = None


class Ending(enum.Enum):
    """How a call ended for one message."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    BEHIND = "behind"  #: of a batch: a message before it in its group failed
    RAISE = "raise"  #: the task's error stops the run; the message is given back


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended for one message: ``delay`` seconds until the next try, ``death`` of a dead letter.

    ``said`` is the error as one line of a log, ``shown`` the error if its traceback is to be logged and can be. Both
    run code of the error's class, so they are made where the call is made.
    """

    ending: Ending
    delay: float = 0.0
    death: Death | None = None
    error: BaseException | None = None
    said: str = ""
    shown: BaseException | None = None


#: The outcome that is the same every time.
DONE = Outcome(Ending.DONE)


#: A call that has ended, the outcome of each of its messages, and the seconds for which each message was called.
EndedCall: TypeAlias = tuple[Call, Sequence[Outcome], Sequence[float]]


class Outlet(Protocol):
    """Where a call's outputs go."""

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Pass one output on; blocks while the next queue is behind. Raises ``CodecError`` for what cannot go.

        That is also what nobody would run: an iterator that nobody gets.

        The last one of a call may wait until the call has ended.
        """

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives, or a generator of what an async generator yields."""
