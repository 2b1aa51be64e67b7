"""What tests of the engine's parts share: a clock that stands still, and an exchange that answers when it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqspipes.brokers.base import OK, Limits
from sqspipes.brokers.exchange import Done, Exchange, Request, Ticket
from sqspipes.engine.loop import EngineLoop
from sqspipes.engine.requests import Requests
from sqspipes.support import event_log

LIMITS = Limits(linger=0.05, requests_in_flight=2, clean_interrupt=False)


class StillClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeTicket(Ticket):
    """A request that waits for its answer."""

    def __init__(self, request: Request, done: Done) -> None:
        self.request = request
        self.done = done
        self.is_cut = False

    def cut(self) -> None:
        self.is_cut = True


class FakeExchange(Exchange):
    """Answers when the test says so; ``open`` has what has no answer."""

    def __init__(self) -> None:
        self.open: list[FakeTicket] = []
        self.asked: list[Any] = []

    def submit(self, request: Request, done: Done) -> Ticket:
        ticket = FakeTicket(request, done)
        self.open.append(ticket)
        self.asked.append(request)
        return ticket

    def close(self) -> None:
        """Nothing is to be closed."""


class Engine:
    """A loop, an exchange and the requests over it; ``errors`` has what turns raised."""

    def __init__(self, **limits: Any) -> None:
        self.clock = StillClock()
        self.loop = EngineLoop(clock=self.clock)
        self.exchange = FakeExchange()
        self.limits = replace(LIMITS, **limits)
        self.requests = Requests(self.exchange, self.loop, "fake://", self.limits, event_log.log)

    def answer(self, came: Any, number: int = 0) -> None:
        """Have one of the open requests answered in a turn."""
        ticket = self.exchange.open.pop(number)
        self.loop.tell(lambda: ticket.done(came))
        self.turn()

    def answer_ok(self, number: int = 0) -> None:
        """Have all entries of an open request answered with OK."""
        request: Any = self.exchange.open[number].request
        entries: Sequence[Any] = getattr(request, "entries", getattr(request, "receipts", ()))
        self.answer([OK] * len(entries), number)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and do what is due."""
        self.clock.now += seconds
        self.loop.turn(0)

    def pass_time(self, seconds: float, step: float = 0.01) -> None:
        """Let time pass in small steps: what a turn brings about may be due in the next one."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.turn(min(step, end - self.clock.now))

    @property
    def errors(self) -> list[BaseException]:
        """What turns raised so far."""
        return self.loop.errors
