"""The steps that contract tests are made of: short names for what a test does to a queue."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from sqspipes.brokers.base import Answer, Broker, Entry, Kind, QueueSpec
from sqspipes.messages.message import Delivery

T = TypeVar("T")

#: Opens one more broker on the store of the test.
Another = Callable[[], Broker]

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 15.0


def moment(broker: Broker) -> float:
    """Return a short lease, or wait, that a broker can keep: SQS counts in whole seconds."""
    return 0.4 if broker.limits.exact else 1.0


def made(broker: Broker, domain: str, *tasks: str) -> list[str]:
    """Make one queue a task and return their names."""
    names = [f"{domain}--{task}.fifo" for task in tasks or ("task",)]
    broker.declare([QueueSpec(name) for name in names])
    return names


def with_dead_letters(broker: Broker, domain: str, max_receives: int) -> tuple[str, str]:
    """Make a queue and its dead-letter queue and return both names."""
    queue, dead = f"{domain}--task.fifo", f"{domain}--task--dead.fifo"
    broker.declare([QueueSpec(queue, dead_letters=dead, max_receives=max_receives), QueueSpec(dead)])
    return queue, dead


def put(broker: Broker, queue: str, *bodies: str, group: str | None = None) -> None:
    """Send messages, each with an id of its own; without a group each is a group of its own."""
    for start in range(0, len(bodies), broker.limits.entries):
        batch = bodies[start : start + broker.limits.entries]
        entries = [Entry(body, group or f"g-{body}", f"id-{body}") for body in batch]
        assert kinds(broker.send(queue, entries)) == [Kind.OK] * len(batch)


def take(
    broker: Broker, queue: str, count: int = 10, *, wait: float = 0.0, lease: float = 30.0
) -> list[Delivery]:
    """Receive once, with a new attempt id."""
    return broker.receive(queue, count=count, wait=wait, lease=lease, attempt=uuid.uuid4().hex)


def take_one(broker: Broker, queue: str, *, wait: float = 5.0, lease: float = 30.0) -> Delivery:
    """Receive a message that has to be there within ``wait``."""
    deliveries = take(broker, queue, 1, wait=wait, lease=lease)
    assert len(deliveries) == 1
    return deliveries[0]


def take_all(broker: Broker, queue: str, count: int) -> list[Delivery]:
    """Receive and acknowledge until ``count`` messages came."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE
    while len(taken) < count and time.monotonic() < deadline:
        deliveries = take(broker, queue, wait=1)
        taken += deliveries
        if deliveries:
            broker.ack(queue, [delivery.receipt for delivery in deliveries])
    return taken


def outlast(broker: Broker, domain: str) -> None:
    """Let two moments pass on the broker's own clock: nothing comes from an empty queue."""
    (empty,) = made(broker, domain, "nothing")
    assert take(broker, empty, wait=2 * moment(broker)) == []


def bodies(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.body for delivery in deliveries]


def kinds(answers: Iterable[Answer]) -> list[Kind]:
    return [answer.kind for answer in answers]


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread of its own."""
    future: Future[T] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, name="test step", daemon=True).start()
    return future
