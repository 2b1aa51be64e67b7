"""An interrupt ends the receives that are open, and only those."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait

from sqspipes.brokers.base import Broker
from sqspipes.messages.message import Delivery
from sqspipes.testing.broker_contract.steps import (
    PATIENCE,
    Another,
    bodies,
    in_thread,
    made,
    moment,
    put,
    take,
)


def _interrupt_until_done(broker: Broker, receives: Sequence[Future[list[Delivery]]]) -> None:
    # When a receive opens cannot be seen from outside: so again, until all have ended.
    deadline = time.monotonic() + PATIENCE
    while wait(receives, timeout=0.2).not_done and time.monotonic() < deadline:
        broker.interrupt()


def test_interrupt_ends_an_open_receive(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    began = time.monotonic()
    receive = in_thread(lambda: take(broker, queue, wait=20))
    _interrupt_until_done(broker, [receive])
    assert receive.result(0) == []
    assert time.monotonic() - began < 5


def test_interrupt_ends_all_open_receives(broker: Broker, domain: str) -> None:
    queues = made(broker, domain, "a", "b", "c")
    began = time.monotonic()
    receives = [in_thread(lambda queue=queue: take(broker, queue, wait=20)) for queue in queues * 2]  # type: ignore[misc]
    _interrupt_until_done(broker, receives)
    assert [receive.result(0) for receive in receives] == [[]] * 6
    assert time.monotonic() - began < 5


def test_receive_after_an_interrupt_is_unaffected(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    take(broker, queue)
    broker.interrupt()
    began = time.monotonic()
    assert take(broker, queue, wait=moment(broker)) == []
    assert time.monotonic() - began > 0.9 * moment(broker)
    put(broker, queue, "a")
    assert bodies(take(broker, queue, wait=1)) == ["a"]


def test_interrupted_receive_loses_no_message(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    receive = in_thread(lambda: take(broker, queue, wait=20, lease=moment(broker)))
    _interrupt_until_done(broker, [receive])
    put(broker, queue, "a")
    # On SQS the cut poll may still take it, for one lease.
    assert bodies(take(broker, queue, wait=10)) == ["a"]


def test_other_calls_go_on_during_an_interrupt(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    sending = in_thread(lambda: put(broker, queue, *[f"m{i}" for i in range(50)]))
    while wait([sending], timeout=0.01).not_done:
        broker.interrupt()
    sending.result(0)
    assert broker.depth(queue).waiting == 50


def test_interrupt_leaves_other_brokers_alone(broker: Broker, another: Another, domain: str) -> None:
    other = another()
    (queue,) = made(other, domain)
    made(broker, domain)
    receive = in_thread(lambda: take(other, queue, wait=10))
    while not wait([receive], timeout=0.2).done and other.depth(queue).waiting == 0:
        broker.interrupt()
        put(other, queue, "a")
    assert bodies(receive.result(PATIENCE)) == ["a"]
