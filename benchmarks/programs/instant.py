"""A broker that answers at once, in its own process: what is left is the engine, with decoding and encoding."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sqspipes import Broker
from sqspipes.brokers.base import OK, Answer, Depth, Entry, Limits, QueueSpec
from sqspipes.brokers.exchange import Done, Exchange, ExchangeLoop, Receive, Request, Ticket, ask
from sqspipes.messages.message import Delivery


class Instant(Broker):
    """Queues in memory. There are no leases, no order and no ids to remember: a benchmark sends nothing twice."""

    url = "instant://"
    limits = Limits(requests_in_flight=8, clean_interrupt=True)

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, deque[Delivery]] = defaultdict(deque)
        self._numbers = itertools.count()
        self._interrupts = 0
        self._listeners: list[Callable[[], object]] = []

    def exchange(self, loop: ExchangeLoop, name: str) -> Exchange:
        """Return an exchange that answers in the next turn."""
        made = InstantExchange(self, loop)
        self._listeners.append(partial(loop.tell, made.ask_again))
        return made

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Every queue is there."""

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages."""
        now = time.time()
        made = [
            Delivery(queue, id, id, 1, entry.body, entry.group, now)
            for entry, id in zip(entries, map(str, self._numbers), strict=False)
        ]
        with self._changed:
            self._queues[queue].extend(made)
            self._changed.notify_all()
        for tell in self._listeners:
            tell()
        return [OK] * len(entries)

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take messages; wait for the first one."""
        waiting = self._queues[queue]
        with self._changed:
            interrupts = self._interrupts
            if not waiting and wait:
                self._changed.wait_for(lambda: waiting or self._interrupts != interrupts, wait)
            return [waiting.popleft() for _ in range(min(count, len(waiting)))]

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Forget messages, which are forgotten already."""
        return [OK] * len(receipts)

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Extend nothing: no lease ends."""
        return [OK] * len(leases)

    def depth(self, queue: str) -> Depth:
        """Count what waits."""
        return Depth(len(self._queues[queue]), 0)

    def message_bytes(self, queue: str) -> int:
        """Return what SQS takes."""
        return self.limits.message_bytes

    def names(self, prefix: str) -> list[str]:
        """List the queues that were used."""
        return [name for name in self._queues if name.startswith(prefix)]

    def queue_url(self, queue: str) -> str:
        """Return the name."""
        return queue

    def tags(self, queue: str) -> dict[str, str]:
        """Return none."""
        return {}

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        """Set none."""

    def purge(self, queue: str) -> None:
        """Empty a queue."""
        self._queues[queue].clear()

    def delete(self, queue: str) -> None:
        """Delete a queue."""
        self._queues.pop(queue, None)

    def interrupt(self) -> None:
        """End the receives that wait."""
        with self._changed:
            self._interrupts += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Release nothing."""


class InstantTicket(Ticket):
    """A request to the broker."""

    def __init__(self, exchange: InstantExchange, request: Request, done: Done) -> None:
        self._exchange = exchange
        self.request = request
        self.done = done

    def cut(self) -> None:
        """End a poll that waits."""
        self._exchange.end(self)


class InstantExchange(Exchange):
    """Requests to the broker, made where they are asked for; a poll waits for the next send."""

    def __init__(self, broker: Instant, loop: ExchangeLoop) -> None:
        self._broker = broker
        self._loop = loop
        self._polls: dict[InstantTicket, None] = {}

    def submit(self, request: Request, done: Done) -> Ticket:
        """Make a request, and tell what came of it in the next turn."""
        ticket = InstantTicket(self, request, done)
        if isinstance(request, Receive):
            self._receive(ticket, request)
        else:
            self._loop.tell(partial(done, ask(self._broker, request)))
        return ticket

    def _receive(self, ticket: InstantTicket, request: Receive) -> None:
        queue, count, wait, lease, attempt = (
            request.queue,
            request.count,
            request.wait,
            request.lease,
            request.attempt,
        )
        found = self._broker.receive(queue, count=count, wait=0.0, lease=lease, attempt=attempt)
        if found or not wait:
            self._loop.tell(partial(ticket.done, found))
            return
        self._polls[ticket] = None
        self._loop.later(wait, partial(self.end, ticket))

    def ask_again(self) -> None:
        """Have the polls that wait ask once more."""
        polls, self._polls = self._polls, {}
        for ticket in polls:
            assert isinstance(ticket.request, Receive)
            self._receive(ticket, ticket.request)

    def end(self, ticket: InstantTicket) -> None:
        """End a poll with nothing, if it is open."""
        if ticket in self._polls:
            del self._polls[ticket]
            self._loop.tell(partial(ticket.done, []))

    def close(self) -> None:
        """End the polls."""
        for ticket in tuple(self._polls):
            self.end(ticket)
