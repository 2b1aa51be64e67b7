"""Batcher: gathers what is to be asked of one queue into full requests."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from sqspipes.brokers.base import Answer, Kind, Limits
from sqspipes.brokers.exchange import Request
from sqspipes.defaults import MOST_GATHERING_SECONDS
from sqspipes.engine.loop import Timer
from sqspipes.engine.requests import Requests
from sqspipes.errors import BrokerUnavailableError

Payload = TypeVar("Payload")


class Job(NamedTuple, Generic[Payload]):
    """What one kind of requests to one queue is, and what is done with the answers.

    ``request`` makes a request of payloads; it is called for each try. ``answered`` gets each payload with its final
    answer. ``unfit`` returns the answer to a payload that is not to be asked for any more, or None.
    """

    name: str
    request: Callable[[Sequence[Payload]], Request]
    answered: Callable[[list[tuple[Payload, Answer]]], None]
    unfit: Callable[[Payload], Answer | None] | None = None


class Item(Generic[Payload]):
    """One entry of a request to come. Items with one ``key`` are asked one after the other, in order."""

    __slots__ = ("due", "key", "payload", "size", "tries")

    def __init__(self, payload: Payload, due: float, key: str | None = None, size: int = 0) -> None:
        self.payload = payload
        self.due = due  #: when the request is to go, on the loop's clock, even if it is not full
        self.key = key
        self.size = size
        self.tries = 0


class Batcher(Generic[Payload]):
    """The entries that wait for one kind of requests to one queue.

    A request leaves when it is full, or when one of its entries is due and no other request is under way. It holds at
    most one entry of a key, and a key is in one request at a time: entries of a request fail one by one, and nothing
    could repair an overtaking.
    """

    def __init__(self, job: Job[Payload], requests: Requests, limits: Limits) -> None:
        self._job = job
        self._requests = requests
        self._loop = requests.loop
        self._limits = limits
        self._ready: deque[Item[Payload]] = deque()
        # Keys that are ready or under way, and what waits; None as long as nothing does.
        self._behind: dict[str, deque[Item[Payload]] | None] = {}
        self._resting: dict[Item[Payload], Timer] = {}  # to be asked again after a pause
        self._due = math.inf  # the earliest of what is ready
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._asking = 0
        self._is_hurried = False
        self._is_lost = False  # a request will never have a reply: the run ends
        self.items = 0  #: entries that have no final answer

    @property
    def is_pending(self) -> bool:
        """Whether there are entries that may still get an answer."""
        return self.items > 0 and not self._is_lost

    def add(self, items: Sequence[Item[Payload]]) -> None:
        """Add entries, in order."""
        self.items += len(items)
        for item in items:
            if item.key is not None:
                if item.key in self._behind:
                    behind = self._behind[item.key]
                    if behind is None:
                        behind = self._behind[item.key] = deque()
                    behind.append(item)
                    continue
                self._behind[item.key] = None
            self._ready.append(item)
            if item.due < self._due:
                self._due = item.due
        self._go()

    def hasten(self) -> None:
        """Ask for what waits now without waiting for more."""
        self._due = 0.0 if self._ready else math.inf
        for item in self._ready:
            item.due = 0.0
        self._go()

    def hurry(self) -> None:
        """Ask without waiting for more, now and from now on; what rests is asked for once more at once."""
        self._is_hurried = True
        for item in tuple(self._resting):
            self._return(item)
        self._go()

    def _go(self) -> None:
        """Ask for what is full, or due."""
        limits = self._limits
        while self._ready and self._asking < limits.requests_in_flight:
            if len(self._ready) < limits.entries and not self._is_hurried:
                due = self._due + (MOST_GATHERING_SECONDS if self._asking else 0.0)
                if self._loop.now() < due:
                    self._go_at(due)
                    return
            self._ask(self._take())

    def _go_at(self, due: float) -> None:
        if due >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.at(due, self._go_now), due

    def _go_now(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._go()

    def _take(self) -> list[Item[Payload]]:
        taken, size, ready = [self._ready.popleft()], 0, self._ready
        size = taken[0].size
        while ready and len(taken) < self._limits.entries:
            size += ready[0].size
            if size > self._limits.request_bytes:
                break
            taken.append(ready.popleft())
        self._due = min([item.due for item in ready]) if ready else math.inf
        return taken

    def _ask(self, items: list[Item[Payload]]) -> None:
        if self._job.unfit is not None:
            items = self._fit(items, self._job.unfit)
            if not items:
                return
        payloads = [item.payload for item in items]
        self._asking += 1
        self._requests.ask(
            self._job.name,
            lambda tries: self._job.request(payloads),
            partial(self._came, items),
            self._lose,
        )

    def _lose(self) -> None:
        self._is_lost = True

    def _fit(
        self, items: list[Item[Payload]], unfit: Callable[[Payload], Answer | None]
    ) -> list[Item[Payload]]:
        """Return the items that are to be asked for, and end the others."""
        fit, over = [], []
        for item in items:
            answer = unfit(item.payload)
            if answer is None:
                fit.append(item)
            else:
                over.append((item, answer))
        self._end(over)
        return fit

    def _came(self, items: list[Item[Payload]], answers: Sequence[Answer]) -> None:
        self._asking -= 1
        over = list(zip(items, answers, strict=True))
        again = [pair for pair in over if pair[1].kind is Kind.AGAIN]
        if again:
            over = [pair for pair in over if pair[1].kind is not Kind.AGAIN]
            for item, answer in again:
                self._rest(item, answer.reason)
        try:
            self._end(over)
        finally:
            self._go()

    def _rest(self, item: Item[Payload], reason: str) -> None:
        """Ask one entry again after a pause of its own: an entry that keeps failing must not hold up the others."""
        item.tries += 1
        seconds = self._requests.failed(self._party(item), BrokerUnavailableError(reason), item.tries)
        self._resting[item] = self._loop.later(seconds, partial(self._return, item))

    def _return(self, item: Item[Payload]) -> None:
        self._resting.pop(item).cancel()
        item.due = 0.0
        self._ready.appendleft(item)
        self._due = 0.0
        self._go()

    def _party(self, item: Item[Payload]) -> str:
        return f"{self._job.name}, entry {id(item)}"

    def _end(self, over: list[tuple[Item[Payload], Answer]]) -> None:
        """Count entries as over, let the next ones of their keys go, and tell the answers."""
        for item, _ in over:
            self.items -= 1
            if item.tries:
                self._requests.succeeded(self._party(item))
            if item.key is not None:
                behind = self._behind[item.key]
                if behind:
                    following = behind.popleft()
                    self._ready.append(following)
                    self._due = min(self._due, following.due)
                else:
                    del self._behind[item.key]
        if over:
            self._job.answered([(item.payload, answer) for item, answer in over])
