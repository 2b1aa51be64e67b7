"""Events: what a run tells its listeners, and its log first of all. Each is a frozen dataclass.

``domain`` and ``task`` are names, ``id`` and ``group`` those of the message: ``group`` is None for a message that was
put without one. Seconds are floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from sqspipes.summary import Summary


@dataclass(frozen=True, slots=True)
class Called:
    """A call has succeeded. ``attempt`` is 1 for the first one, ``seconds`` how long it took."""

    domain: str
    task: str
    id: str
    group: str | None
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Retried:
    """A call has failed, and is repeated in ``delay`` seconds.

    ``attempt`` is the number of the call that failed, ``of`` how many are allowed, None without a limit. ``error`` is
    the error as one line, ``exception`` the error itself, or None where it cannot be printed.
    """

    domain: str
    task: str
    id: str
    group: str | None
    attempt: int
    of: int | None
    delay: float
    error: str
    exception: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Died:
    """A message has become a dead letter, after so many ``attempts``; ``client.dead_letters(task)`` lists it."""

    domain: str
    task: str
    id: str
    group: str | None
    attempts: int
    error_type: str
    error: str
    exception: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HandedOn:
    """An output is safe in the next queue. ``id`` is that of the message it comes of, None of a source's.

    ``to`` is the task that gets the output, ``output`` the output's id.
    """

    domain: str
    task: str
    id: str | None
    to: str
    output: str


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another process may have this message by now: what its call returns here changes nothing."""

    domain: str
    task: str
    id: str


@dataclass(frozen=True, slots=True)
class OutageBegan:
    """A broker does not answer. ``broker`` is its URL without secrets, ``error`` what the request met."""

    broker: str
    error: str


@dataclass(frozen=True, slots=True)
class OutageEnded:
    """A broker answers again, after so many ``seconds`` and failed ``requests``."""

    broker: str
    seconds: float
    requests: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run is over. ``summary`` says why and has its counts, ``error`` is what ``wait`` raises."""

    domain: str
    summary: Summary
    error: BaseException | None = field(default=None, compare=False, repr=False)


Event: TypeAlias = Called | Retried | Died | HandedOn | LeaseLost | OutageBegan | OutageEnded | Stopped
