"""PutBatcher: gathers what is to be asked of one queue into full requests."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sqspipes.brokers.base import Answer, Kind, Limits
from sqspipes.defaults import MOST_GATHERING_SECONDS, MOST_WAITING_BYTES, MOST_WAITING_ITEMS
from sqspipes.errors import BrokerUnavailableError
from sqspipes.support import clocks
from sqspipes.support.outage import Outage, pause_after_return

#: Seconds after which a thread with nothing to do ends; the next item starts another.
IDLE_SECONDS = 5.0


class PutItem:
    """One entry of a request to come, which waits ``linger`` seconds at most for the request to be full.

    Items with one ``key`` are asked one after the other, in order.
    """

    __slots__ = ("due", "key", "linger", "payload", "size", "tries")

    def __init__(self, payload: Any, key: str | None = None, size: int = 0, linger: float = 0.0) -> None:
        self.payload = payload
        self.key = key
        self.size = size
        self.linger = linger
        self.tries = 0
        self.due = 0.0


class PutBatcher:
    """A queue of items, and the threads that turn them into requests.

    A request takes what has gathered while the last one was under way. It leaves when it is full, or when one of
    its items is due and no other request is under way. A request holds at most one item of a key, and a key is in one
    request at a time: entries of a request fail one by one, and nothing could repair an overtaking.

    ``request`` asks the broker; ``answered`` gets what a request settled, each payload with its final answer, in a
    thread of the batcher; ``died`` gets what the batcher cannot survive.
    """

    def __init__(
        self,
        name: str,
        request: Callable[[Sequence[Any]], list[Answer]],
        answered: Callable[[list[tuple[Any, Answer]]], None],
        died: Callable[[str, BaseException], None],
        outage: Outage,
        limits: Limits,
    ) -> None:
        self.name = name
        self._request = request
        self._answered = answered
        self._died = died
        self._outage = outage
        self._limits = limits
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # there may be something to ask
        self._eased = threading.Condition(self._lock)  # less waits than before
        self._ready: deque[PutItem] = deque()  # may be asked now
        self._behind: dict[
            str, deque[PutItem]
        ] = {}  # keys that are ready or under way, and what waits for them
        self._resting: list[tuple[float, int, PutItem]] = []  # will be asked again, and when
        self._items = 0
        self._bytes = 0
        self._threads: set[threading.Thread] = set()
        self._started = 0
        self._idle = 0
        self._asking = 0  # requests under way
        self._due = 0.0
        self._paused_until = 0.0
        self._closing = False
        self._aborted = False
        outage.on_return(self._resume)

    def add(self, item: PutItem) -> None:
        """Queue an item; never blocks."""
        now = clocks.monotonic()
        with self._lock:
            before = len(self._ready)
            item.due = now + item.linger
            self._items += 1
            self._bytes += item.size
            self._queue(item)
            full = len(self._ready) >= self._limits.entries
            if self._idle and (full or (self._ready and not before) or item.due < self._due):
                self._changed.notify()
            elif not self._idle:
                self._start_thread()

    def wait_for_room(self) -> bool:
        """Block while too much waits; False when the batcher was aborted meanwhile."""
        if self._has_room() and not self._aborted:  # most often so: no lock is needed to see it
            return True
        with self._lock:
            while not self._aborted and not self._has_room():
                self._eased.wait()
            return not self._aborted

    def _has_room(self) -> bool:
        return self._items < MOST_WAITING_ITEMS and self._bytes < MOST_WAITING_BYTES

    def drain(self, deadline: float) -> bool:
        """Ask for all that waits, now and from now on; False if it was not done by ``deadline`` (monotonic)."""
        with self._lock:
            self._closing = True
            self._paused_until = 0.0
            self._wake(math.inf)
            self._changed.notify_all()
            while self._items and not self._aborted and (left := deadline - clocks.monotonic()) > 0:
                self._eased.wait(left)
            return self._items == 0

    def close(self, deadline: float) -> bool:
        """Ask for all that waits and end; False if it was not done by ``deadline`` (monotonic) and is given up."""
        with self._lock:
            finished = self.drain(deadline)
            self._aborted = True
            self._changed.notify_all()
            self._eased.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - clocks.monotonic()))
        return finished

    def _queue(self, item: PutItem) -> None:
        if item.key is not None:
            behind = self._behind.get(item.key)
            if behind is not None:
                behind.append(item)
                return
            self._behind[item.key] = deque()
        self._ready.append(item)

    def _resume(self) -> None:
        """End a pause soon: the broker answers again."""
        with self._lock:
            self._paused_until = min(self._paused_until, clocks.monotonic() + pause_after_return())
            self._changed.notify_all()

    def _start_thread(self) -> None:
        if len(self._threads) >= self._limits.requests_in_flight or self._aborted:
            return
        self._started += 1
        name = f"sqspipes {self.name} {self._started}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the machine has no more threads
            if not self._threads:
                self._abort()
                self._died(self.name, error)
            return
        self._threads.add(thread)

    def _work(self) -> None:
        try:
            while items := self._next_request():
                self._ask(items)
                items.clear()  # while it waits for more, it keeps nothing of the last ones
                self._asked()
        except BaseException as error:
            with self._lock:
                self._abort()  # it stays among the threads: ``close`` waits until its death was told
            self._died(self.name, error)

    def _abort(self) -> None:
        """Give up what waits; the lock is held."""
        self._aborted = True
        self._changed.notify_all()
        self._eased.notify_all()

    def _next_request(self) -> list[PutItem]:
        """Wait for a request's worth of items and take them; empty when there is nothing more to do."""
        with self._lock:
            idle_until = clocks.monotonic() + IDLE_SECONDS
            while not self._aborted:
                now = clocks.monotonic()
                self._wake(now)
                wait = self._seconds_to_wait(now)
                if wait <= 0:
                    return self._take()
                if not (self._ready or self._resting) and (
                    now >= idle_until or (self._closing and not self._items)
                ):
                    break
                self._idle += 1
                self._changed.wait(wait)
                self._idle -= 1
            self._threads.discard(threading.current_thread())
            return []

    def _seconds_to_wait(self, now: float) -> float:
        if now < self._paused_until:
            return self._paused_until - now
        rest = self._resting[0][0] - now if self._resting else IDLE_SECONDS
        if not self._ready:
            return rest
        if len(self._ready) >= self._limits.entries or self._closing:
            return 0.0
        self._due = min(item.due for item in self._ready)
        return min(rest, self._due - now + (MOST_GATHERING_SECONDS if self._asking else 0.0))

    def _take(self) -> list[PutItem]:
        taken: list[PutItem] = []
        size = 0
        while self._ready and len(taken) < self._limits.entries:
            if taken and size + self._ready[0].size > self._limits.request_bytes:
                break
            item = self._ready.popleft()
            size += item.size
            taken.append(item)
        self._asking += 1
        if self._ready and self._idle:
            self._changed.notify()
        elif len(self._ready) >= self._limits.entries:
            self._start_thread()
        return taken

    def _asked(self) -> None:
        """Let what has gathered meanwhile go."""
        with self._lock:
            self._asking -= 1
            if self._ready and self._idle:
                self._changed.notify()

    def _ask(self, items: list[PutItem]) -> None:
        try:
            answers = self._request([item.payload for item in items])
        except BrokerUnavailableError as error:
            tries = max(item.tries for item in items) + 1
            self._repeat(items, self._outage.failed(self.name, error, tries))
            return
        answered = list(zip(items, answers, strict=True))
        settled = [(item, answer) for item, answer in answered if answer.kind is not Kind.AGAIN]
        if settled:
            self._outage.succeeded(self.name)
            for item, _ in settled:
                if item.tries:
                    self._outage.succeeded(self._party(item))
            self._answered([(item.payload, answer) for item, answer in settled])
            self._release([item for item, _ in settled])
        for item, answer in answered:
            if answer.kind is Kind.AGAIN:
                self._rest(item, answer.reason)

    def _party(self, item: PutItem) -> str:
        return f"{self.name}, entry {id(item)}"

    def _rest(self, item: PutItem, reason: str) -> None:
        """Ask one item again after a pause of its own: an entry that keeps failing must not hold up the others."""
        item.tries += 1
        seconds = self._outage.failed(self._party(item), BrokerUnavailableError(reason), item.tries)
        with self._lock:
            item.due = clocks.monotonic() + seconds
            heapq.heappush(self._resting, (item.due, id(item), item))
            self._changed.notify()

    def _wake(self, now: float) -> None:
        """Let items go that have rested; the lock is held."""
        while self._resting and self._resting[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._resting)[2])

    def _repeat(self, items: list[PutItem], seconds: float) -> None:
        """Put items back to the front, in order, after a pause."""
        with self._lock:
            for item in reversed(items):
                item.tries += 1
                self._ready.appendleft(item)
            # Several requests fail together: new items, at their first try, must not cut the pause of older ones.
            self._paused_until = max(self._paused_until, clocks.monotonic() + seconds)
            self._changed.notify()

    def _release(self, items: Sequence[PutItem]) -> None:
        """Count items as over, and let the next ones of their keys go."""
        with self._lock:
            before = len(self._ready)
            for item in items:
                self._items -= 1
                self._bytes -= item.size
                if item.key is not None:
                    behind = self._behind[item.key]
                    if behind:
                        self._ready.append(behind.popleft())
                    else:
                        del self._behind[item.key]
            if self._ready and not before and self._idle:
                self._changed.notify()
            self._eased.notify_all()
            if self._closing and not self._items:
                self._changed.notify_all()
