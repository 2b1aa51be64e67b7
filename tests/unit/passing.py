"""A broker in memory that tells what is asked of it, and lets a test come in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Answer, Broker, Depth, Entry, QueueSpec
from sqspipes.messages.message import Delivery


class Passing(Broker):
    """A broker in memory, or ``inner``; ``before`` has functions that run before a request, by its name and task.

    ``taken`` counts what was received from each queue before it was asked for the last time: by then it is held.
    """

    def __init__(self, inner: Broker | None = None, **limits: Any) -> None:
        self._inner = inner or open_broker("memory://")
        self.url = self._inner.url
        self.limits = replace(self._inner.limits, **limits)
        self.before: dict[tuple[str, str], Callable[[Sequence[Any]], list[Answer] | None]] = {}
        self.receives: list[tuple[str, int]] = []
        self.released: list[tuple[str, float]] = []
        self.extends = 0
        self.interrupts = 0
        self._given: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()

    def _hook(self, action: str, queue: str, entries: Sequence[Any]) -> list[Answer] | None:
        hook = self.before.get((action, queue.removesuffix(".fifo").partition("--")[2]))
        return None if hook is None else hook(entries)

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        self._inner.declare(specs, create=create)

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        return self._hook("send", queue, entries) or self._inner.send(queue, entries)

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        self.receives.append((queue, count))
        self.taken[queue] = self._given[queue]
        self._hook("receive", queue, [count])
        found = self._inner.receive(queue, count=count, wait=wait, lease=lease, attempt=attempt)
        self._given[queue] += len(found)
        return found

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        return self._hook("ack", queue, receipts) or self._inner.ack(queue, receipts)

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        self.extends += 1
        self.released += [(queue, seconds) for _, seconds in leases if seconds == 0]
        return self._hook("extend", queue, leases) or self._inner.extend(queue, leases)

    def depth(self, queue: str) -> Depth:
        self._hook("depth", queue, [])
        return self._inner.depth(queue)

    def message_bytes(self, queue: str) -> int:
        return self._inner.message_bytes(queue)

    def names(self, prefix: str) -> list[str]:
        return self._inner.names(prefix)

    def queue_url(self, queue: str) -> str:
        return self._inner.queue_url(queue)

    def tags(self, queue: str) -> dict[str, str]:
        self._hook("tags", queue, [])
        return self._inner.tags(queue)

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        self._inner.tag(queue, tags)

    def purge(self, queue: str) -> None:
        self._inner.purge(queue)

    def delete(self, queue: str) -> None:
        self._inner.delete(queue)

    def interrupt(self) -> None:
        self.interrupts += 1
        self._inner.interrupt()

    def close(self) -> None:
        self._inner.close()
