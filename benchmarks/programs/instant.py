"""A broker that answers at once, in its own process: what is left is the engine, with decoding and encoding."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from sqspipes import Broker
from sqspipes.brokers.base import OK, Answer, Depth, Entry, Limits, QueueSpec
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
