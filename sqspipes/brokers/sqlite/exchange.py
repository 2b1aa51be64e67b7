"""MemoryExchange: the requests of an engine to ``memory://``, made by its leader: nothing there waits for a disk.

A poll that finds nothing waits for the bell, and for leases that end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from sqspipes.brokers.base import Broker
from sqspipes.brokers.exchange import (
    Done,
    Exchange,
    ExchangeLoop,
    LoopTimer,
    Receive,
    Reply,
    Request,
    Ticket,
    ask,
)
from sqspipes.brokers.sqlite.bell import TICK, Bell


class MemoryTicket(Ticket):
    """A request that was made, or a poll that waits."""

    __slots__ = ("_exchange", "done", "request", "timer")

    def __init__(self, exchange: MemoryExchange, request: Request, done: Done) -> None:
        self._exchange = exchange
        self.request = request
        self.done = done
        self.timer: LoopTimer | None = None  #: ends a poll that waits

    def cut(self) -> None:
        """End a poll that waits."""
        self._exchange.end(self)


class MemoryExchange(Exchange):
    """Requests to one broker in memory for one engine. All methods but ``_hear`` are called in the engine's turn."""

    def __init__(self, broker: Broker, bell: Bell, is_due: Callable[[str], bool], loop: ExchangeLoop) -> None:
        self._broker = broker
        self._bell = bell
        self._is_due = is_due
        self._loop = loop
        self._polls: dict[str, dict[MemoryTicket, None]] = {}  # that wait, by queue
        self._is_looking = False
        self._is_closed = False
        bell.listeners.add(self._hear)

    def submit(self, request: Request, done: Done) -> Ticket:
        """Make a request, and tell in the next turn what came of it."""
        if self._is_closed:
            raise RuntimeError("the exchange is closed: it takes no more requests")
        ticket = MemoryTicket(self, request, done)
        is_poll = isinstance(request, Receive) and request.is_poll
        if is_poll:  # it waits already when it asks: the bell may ring in between
            self._polls.setdefault(request.queue, {})[ticket] = None
        came = self._asked(request)
        if is_poll and not came:
            assert isinstance(request, Receive)
            ticket.timer = self._loop.later(request.wait, partial(self.end, ticket))
            self._look_soon()
        else:
            self._has_taken(ticket)
            self._loop.tell(partial(done, came))
        return ticket

    def end(self, ticket: MemoryTicket) -> None:
        """End a poll with nothing, if it waits."""
        if self._has_taken(ticket):
            self._loop.tell(partial(ticket.done, []))

    def close(self) -> None:
        """Take no more requests, and end the polls."""
        self._is_closed = True
        self._bell.listeners.discard(self._hear)
        for polls in tuple(self._polls.values()):
            for ticket in tuple(polls):
                self.end(ticket)

    def _asked(self, request: Request) -> Reply | BaseException:
        if isinstance(request, Receive):
            request = Receive(request.queue, request.count, 0.0, request.lease, request.attempt)
        try:
            return ask(self._broker, request)
        except BaseException as error:
            return error

    def _has_taken(self, ticket: MemoryTicket) -> bool:
        """Take a poll from those that wait; False if it is none of them."""
        polls = self._polls.get(ticket.request.queue, {})
        if ticket not in polls:
            return False
        del polls[ticket]
        if not polls:
            del self._polls[ticket.request.queue]
        if ticket.timer is not None:
            ticket.timer.cancel()
        return True

    # What may bring messages

    def _hear(self, queues: Iterable[str]) -> None:
        """Have queues looked at in which something became deliverable; from any thread."""
        for queue in queues:
            if queue in self._polls:
                self._loop.tell(partial(self._ask_again, queue))

    def _ask_again(self, queue: str) -> None:
        for ticket in tuple(self._polls.get(queue, ())):
            came = self._asked(ticket.request)
            if not came:
                return
            self._has_taken(ticket)
            ticket.done(came)

    def _look_soon(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._loop.later(TICK, self._look)

    def _look(self) -> None:
        """Look at leases: no bell rings when one ends."""
        self._is_looking = False
        for queue in tuple(self._polls):
            if self._is_due(queue):
                self._ask_again(queue)
        if self._polls:
            self._look_soon()
