"""Worlds: brokers whose clock is the test's own, and what happens to messages besides a run that goes well."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqspipes import TaskClient
from sqspipes.brokers.base import Answer, Broker, Entry, Kind
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.errors import BrokerError
from sqspipes.messages.message import Delivery

#: Seconds for which a queue knows an id, and some more.
FORGOTTEN = 301.0

#: Seconds of a lease that no crowded machine outlasts in a run, and after which it is over on the test's clock.
LEASE, OVER = 60.0, 61.0

_numbers = itertools.count(1)


class Clock:
    """A clock that goes when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class Dying(Broker):
    """Ends a run, once, after a call's outputs are safe and before its input is acknowledged.

    It remembers what it handed out: the bodies, by queue and message id.
    """

    def __init__(self, url: str, *, clock: Clock) -> None:
        super().__init__(url, clock=clock)  # type: ignore[call-arg]
        self.dies_for: str | None = None
        self.handed_out: dict[str, dict[str, str]] = {}

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Refuse to acknowledge, if that is what is to happen now."""
        if queue == self.dies_for:
            self.dies_for = None
            raise BrokerError("this process is at its end")
        return super().ack(queue, receipts)  # type: ignore[safe-super]

    def receive(self, queue: str, **options: Any) -> list[Delivery]:
        """Receive, and see that no two messages have one id."""
        deliveries = super().receive(queue, **options)  # type: ignore[safe-super]
        for each in deliveries:
            assert self.handed_out.setdefault(queue, {}).setdefault(each.id, each.body) == each.body
            assert not any(each.id in ids for other, ids in self.handed_out.items() if other != queue)
        return deliveries


class DyingSqlite(Dying, SqliteBroker):
    """The embedded broker, in a file or in memory."""


class DyingRedis(Dying, RedisBroker):
    """The broker in Redis."""


def dying(broker: str, clock: Clock) -> Any:
    """Return a broker of this URL that goes by the clock."""
    kind = DyingRedis if broker.startswith("redis") else DyingSqlite
    return kind(broker, clock=clock)


def foreign(broker: Broker, queue: str, *bodies: Any, group: str = "theirs") -> None:
    """Send what another program would: JSON of its own, under deduplication ids of its own."""
    for body in bodies:
        entry = Entry(json.dumps(body), group, uuid.uuid4().hex)
        assert [answer.kind for answer in broker.send(queue, [entry])] == [Kind.OK]


def move_letters(client: TaskClient, broker: Broker, task: str) -> int:
    """Put all letters of a task back as another tool does: as they are, each with a new deduplication id."""
    queue, dead = (f"{client.domain}--{task}{suffix}.fifo" for suffix in ("", "--dead"))
    moved = 0
    while letters := broker.receive(dead, count=10, wait=1.0 if not broker.limits.exact else 0.0, lease=30.0,
                                    attempt=uuid.uuid4().hex):  # fmt: skip
        for letter in letters:
            broker.send(queue, [Entry(letter.body, letter.group, f"tool-{next(_numbers)}")])
        broker.ack(dead, [letter.receipt for letter in letters])
        moved += len(letters)
    return moved
