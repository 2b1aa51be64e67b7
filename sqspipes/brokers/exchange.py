"""The port of the engine: requests are values, and their answers come later.

A ``Broker`` blocks the thread that asks. An ``Exchange`` never does: ``submit`` takes a request and returns at once,
and ``done`` is called with what came of it in a later turn of the engine's loop. ``adapter.py`` makes an exchange of
any broker.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from sqspipes.brokers.base import Answer, Broker, Depth, Entry
from sqspipes.messages.message import Delivery


@dataclass(frozen=True, slots=True)
class Send:
    """Store messages, in order."""

    queue: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Receive:
    """Take up to ``count`` messages for ``lease`` seconds; wait up to ``wait`` seconds for the first one."""

    queue: str
    count: int
    wait: float
    lease: float
    attempt: str

    @property
    def is_poll(self) -> bool:
        """Whether the receive may stay open for long."""
        return self.wait > 0


@dataclass(frozen=True, slots=True)
class Ack:
    """Delete delivered messages for good."""

    queue: str
    receipts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Extend:
    """Set the seconds, counted from now, that deliveries stay invisible; 0 gives one back at once."""

    queue: str
    leases: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Count:
    """Count a queue's messages."""

    queue: str


Request: TypeAlias = Send | Receive | Ack | Extend | Count

#: The answers to the entries of a request, in their order; or what a receive took; or a queue's depth.
Reply: TypeAlias = Sequence[Answer] | Sequence[Delivery] | Depth

#: Is told what came of a request: its reply, or the error that the broker raised.
Done: TypeAlias = Callable[[Reply | BaseException], None]


class LoopTimer(Protocol):
    """Something that a loop does at a time."""

    def cancel(self) -> None: ...


class ExchangeLoop(Protocol):
    """The engine's loop, as far as an exchange needs it. ``tell`` may be called from any thread."""

    turns: int  #: how many turns there were, this one included

    def tell(self, do: Callable[[], object]) -> None: ...

    def now(self) -> float: ...

    def later(self, seconds: float, do: Callable[[], object]) -> LoopTimer: ...

    def watch(self, file: int | socket.socket, events: int, do: Callable[[], object]) -> None: ...

    def unwatch(self, file: int | socket.socket) -> None: ...


class Ticket(ABC):
    """A request under way."""

    @abstractmethod
    def cut(self) -> None:
        """End a poll soon: its answer has what it took already. Any other request goes on as it would."""


class Exchange(ABC):
    """Requests to one broker for one engine. All methods are called in the engine's turn."""

    @abstractmethod
    def submit(self, request: Request, done: Done) -> Ticket:
        """Begin a request. ``done`` is called once, in a later turn, and never inside ``submit``."""

    @abstractmethod
    def close(self) -> None:
        """Take no more requests; those that are under way end, or go on without the engine: no turn may follow."""


@runtime_checkable
class HasExchange(Protocol):
    """A broker with an exchange of its own."""

    def exchange(self, loop: ExchangeLoop, name: str) -> Exchange | None:
        """Return an exchange; None where requests of this broker can only be made by threads that block."""


def ask(broker: Broker, request: Request) -> Reply:
    """Make a request in this thread, and return its reply."""
    match request:
        case Send(queue, entries):
            return broker.send(queue, entries)
        case Receive(queue, count, wait, lease, attempt):
            return broker.receive(queue, count=count, wait=wait, lease=lease, attempt=attempt)
        case Ack(queue, receipts):
            return broker.ack(queue, receipts)
        case Extend(queue, leases):
            return broker.extend(queue, leases)
        case Count(queue):
            return broker.depth(queue)
