"""The adapter: an exchange over a broker that blocks, with a few threads that leave answers in the engine's inbox.

Each request under way has a thread; a thread is started only where none is idle. So an acknowledgement or an
extension never waits for a poll to end, nor for requests to another queue that hang.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import cast

from sqspipes.brokers.base import Broker
from sqspipes.brokers.exchange import (
    Done,
    Exchange,
    ExchangeLoop,
    HasExchange,
    Receive,
    Reply,
    Request,
    Ticket,
    ask,
)
from sqspipes.support import clocks
from sqspipes.support.workers import Workers

#: Seconds between two interrupts of polls that are cut: one may have opened just after the last.
INTERRUPT_SECONDS = 0.1

#: Seconds of a poll that are worth asking for: brokers may count in whole ones, and none would not wait at all.
SHORTEST_SECONDS = 1.0

#: Seconds after which a thread that has nothing to do ends.
IDLE_SECONDS = 5.0


def open_exchange(broker: Broker, loop: ExchangeLoop, name: str) -> Exchange:
    """Return an exchange over a broker: its own, or one of threads that are called after ``name``."""
    own = None
    # Its class is asked: a broker that passes on what it does not have has none of its own.
    if issubclass(type(broker), HasExchange):
        own = cast(HasExchange, broker).exchange(loop, name)
    return BlockingExchange(broker, loop.tell, name) if own is None else own


class BlockingTicket(Ticket):
    """A request that a thread of the adapter makes."""

    __slots__ = ("_adapter", "done", "is_cut", "is_over", "request")

    def __init__(self, adapter: BlockingExchange, request: Request, done: Done) -> None:
        self._adapter = adapter
        self.request = request
        self.done = done
        self.is_cut = False
        self.is_over = False  #: the broker has answered

    def cut(self) -> None:
        """End a poll soon."""
        if isinstance(self.request, Receive) and self.request.is_poll:
            self.is_cut = True
            self._adapter.interrupt()


class BlockingExchange(Exchange):
    """The exchange over a broker that blocks; ``tell`` leaves word in the inbox of the engine, from any thread.

    Another run may interrupt all receives of a broker that it shares. So a poll that ends early and empty, and was
    not cut here, is asked again for the rest of its time.
    """

    def __init__(self, broker: Broker, tell: Callable[[Callable[[], object]], object], name: str) -> None:
        self._broker = broker
        self._tell = tell
        # Not a bounded pool: requests that hang, to one queue, may hold up no others.
        self._polls = Workers(math.inf, f"{name} poll", IDLE_SECONDS)
        self._others = Workers(math.inf, f"{name} request", IDLE_SECONDS)
        self._open: set[BlockingTicket] = set()  # polls, touched in the engine's turn
        self._interrupting = threading.Event()
        self._closed = False
        self._interrupter: threading.Thread | None = None
        self._name = name

    def submit(self, request: Request, done: Done) -> Ticket:
        """Begin a request."""
        ticket = BlockingTicket(self, request, done)
        if self._closed:
            raise RuntimeError("the exchange is closed: it takes no more requests")
        if isinstance(request, Receive) and request.is_poll:
            self._polls.submit(self._ask, ticket)
            self._open.add(ticket)
        else:
            self._others.submit(self._ask, ticket)
        return ticket

    def close(self) -> None:
        """Take no more requests, and cut the open polls."""
        self._closed = True
        for ticket in tuple(self._open):
            ticket.cut()
        self._polls.shutdown(wait=False)
        self._others.shutdown(wait=False)
        if not self._open:
            self._interrupting.set()

    def interrupt(self) -> None:
        """Interrupt the broker's receives until no poll that was cut is open; in a thread, as a broker may block."""
        if self._interrupter is None:
            thread = threading.Thread(target=self._interrupt, name=f"{self._name} interrupts", daemon=True)
            try:
                thread.start()
            except Exception:  # the machine has no more threads
                with suppress(Exception):  # it is closed, or away: polls end by themselves
                    self._broker.interrupt()
                return
            self._interrupter = thread
        self._interrupting.set()

    def _interrupt(self) -> None:
        while True:
            self._interrupting.wait()
            self._interrupting.clear()
            while any(ticket.is_cut and not ticket.is_over for ticket in tuple(self._open)):
                try:
                    self._broker.interrupt()
                except Exception:
                    break  # it is closed, or away: polls end by themselves
                self._interrupting.wait(INTERRUPT_SECONDS)
            if self._closed and all(ticket.is_over for ticket in tuple(self._open)):
                return

    # In the adapter's threads

    def _ask(self, ticket: BlockingTicket) -> None:
        came: Reply | BaseException
        try:
            came = self._asked(ticket)
        except BaseException as error:
            came = error
        ticket.is_over = True
        if self._closed:
            self._interrupting.set()
        self._tell(partial(self._answered, ticket, came))

    def _asked(self, ticket: BlockingTicket) -> Reply:
        request = ticket.request
        if not isinstance(request, Receive):
            return ask(self._broker, request)
        deadline = clocks.monotonic() + request.wait
        while not ticket.is_cut:
            reply = ask(self._broker, request)
            left = deadline - clocks.monotonic()
            if reply or left < SHORTEST_SECONDS:
                return reply
            request = Receive(request.queue, request.count, left, request.lease, request.attempt)
        return []

    # In the engine's turn

    def _answered(self, ticket: BlockingTicket, came: Reply | BaseException) -> None:
        self._open.discard(ticket)
        ticket.done(came)
