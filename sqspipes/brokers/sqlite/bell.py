"""The bell: wakes the receives that wait for a message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from sqspipes.support import clocks
from sqspipes.support.wakeup import Wakeup

#: Seconds between two looks at what other processes did, and at leases that end.
TICK = 0.05

_FAR = float("inf")


class Waiter(Wakeup):
    """A receive that waits; ``ended`` says that an interrupt ends it."""

    __slots__ = ("ended", "queue", "rung")

    def __init__(self, queue: str) -> None:
        super().__init__()
        self.queue = queue
        self.rung = self.ended = False


class Bell:
    """Wakes receives: at once for what this process does, within a tick for other processes and for leases.

    One of the waiting receives keeps watch for all: ``version`` tells it whether anything changed, and
    ``due`` at which wall time a queue has something to hand out.
    """

    def __init__(
        self, version: Callable[[], object], due: Callable[[str], float], clock: Callable[[], float]
    ) -> None:
        self._version = version
        self._due = due
        self._clock = clock
        # A signal's handler may interrupt the very thread that has it.
        self._lock = threading.RLock()
        self._watch = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._seen: object = None
        self._times: dict[str, float] = {}
        #: Rises with each interrupt.
        self.interrupts = 0
        #: Are told of queues in which something became deliverable, by the thread that made it so.
        self.listeners: set[Callable[[Iterable[str]], object]] = set()

    def ring(self, queues: Iterable[str]) -> None:
        """Wake the receives of queues in which something became deliverable."""
        for hear in tuple(self.listeners):
            hear(queues)
        if self._waiters:
            # Without the lock: what puts may be interrupted, and nobody may have to wait for it then.
            for queue in queues:
                for waiter in tuple(self._waiters.get(queue, ())):
                    waiter.rung = True
                    waiter.wake()

    def interrupt(self) -> None:
        """End the waiting of all receives that began before."""
        with self._lock:
            self.interrupts += 1
            for waiters in self._waiters.values():
                for waiter in waiters:
                    waiter.ended = True
                    waiter.wake()

    @contextmanager
    def listening(self, queue: str, interrupts: int) -> Iterator[Waiter]:
        """Hear the bell of a queue; ``interrupts`` is their number when the receive began."""
        waiter = Waiter(queue)
        with self._lock:
            waiter.ended = self.interrupts != interrupts
            self._waiters.setdefault(queue, []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters[queue].remove(waiter)
                if not self._waiters[queue]:
                    del self._waiters[queue]

    def wait(self, waiter: Waiter, deadline: float) -> bool:
        """Wait until the bell rings and return True, or for an interrupt or the deadline and return False."""
        while not waiter.ended:
            if waiter.rung:
                waiter.rung = False
                return True
            left = deadline - clocks.monotonic()
            if left <= 0:
                return False
            if self._watch.acquire(blocking=False):
                try:
                    self._keep_watch(waiter, deadline)
                finally:
                    self._watch.release()
                    self._hand_on(waiter)
            else:
                waiter.sleep(left)
        return False

    def _keep_watch(self, waiter: Waiter, deadline: float) -> None:
        """Look at the store for all that wait, until this receive ends."""
        while not (waiter.rung or waiter.ended):
            left = deadline - clocks.monotonic()
            if left <= 0:
                return
            self._look()
            waiter.sleep(min(TICK, left))

    def _look(self) -> None:
        """Ring for the queues that have something to hand out."""
        version = self._version()
        if version != self._seen:
            self._seen = version
            self._times.clear()
        with self._lock:
            queues = list(self._waiters)
        for queue in queues:
            if queue not in self._times:
                self._times[queue] = self._due(queue)
        now = self._clock()
        due = [queue for queue in queues if self._times[queue] <= now]
        for queue in due:
            del self._times[queue]
        self.ring(due)

    def _hand_on(self, leaving: Waiter) -> None:
        """Wake one of the others, to keep watch."""
        with self._lock:
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if waiter is not leaving:
                        waiter.wake()
                        return
