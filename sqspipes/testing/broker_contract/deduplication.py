"""The same id again within five minutes, in the same queue and group, is accepted and not stored."""

from __future__ import annotations

from sqspipes.brokers.base import OK, Broker, Entry, QueueSpec
from sqspipes.testing.broker_contract.steps import bodies, made, take, take_all, take_one


def test_same_id_again_is_accepted_and_not_stored(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert broker.send(queue, [Entry("first", "g", "id")]) == [OK]
    assert broker.send(queue, [Entry("second", "g", "id")]) == [OK]
    assert bodies(take(broker, queue)) == ["first"]


def test_same_id_twice_in_one_request_is_stored_once(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert broker.send(queue, [Entry("first", "g", "id"), Entry("second", "g", "id")]) == [OK, OK]
    assert bodies(take(broker, queue)) == ["first"]


def test_id_is_known_while_its_message_is_in_flight(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.send(queue, [Entry("first", "g", "id")])
    delivery = take_one(broker, queue)
    assert broker.send(queue, [Entry("second", "g", "id")]) == [OK]
    broker.ack(queue, [delivery.receipt])
    assert take(broker, queue) == []


def test_id_is_known_when_its_message_is_long_gone(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.send(queue, [Entry("first", "g", "id")])
    broker.ack(queue, [take_one(broker, queue).receipt])
    assert broker.send(queue, [Entry("second", "g", "id")]) == [OK]
    assert take(broker, queue) == []


def test_same_id_in_another_group_is_another_message(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.send(queue, [Entry("first", "g", "id"), Entry("second", "h", "id")])
    assert sorted(bodies(take(broker, queue))) == ["first", "second"]


def test_same_id_in_another_group_is_another_message_without_high_throughput(
    broker: Broker, domain: str
) -> None:
    queue = f"{domain}--task.fifo"
    broker.declare([QueueSpec(queue, high_throughput=False)])
    entries = [Entry("first", "g", "id"), Entry("second", "h", "id"), Entry("third", "id", "id")]
    for _ in range(2):
        assert broker.send(queue, entries) == [OK] * 3
    assert sorted(bodies(take_all(broker, queue, 3))) == ["first", "second", "third"]
    assert take(broker, queue) == []


def test_same_id_in_another_queue_is_another_message(broker: Broker, domain: str) -> None:
    left, right = made(broker, domain, "left", "right")
    broker.send(left, [Entry("first", "g", "id")])
    broker.send(right, [Entry("second", "g", "id")])
    assert bodies(take(broker, left) + take(broker, right)) == ["first", "second"]


def test_group_and_id_are_told_apart(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.send(queue, [Entry("first", "a:b", "c"), Entry("second", "a", "b:d"), Entry("third", "ab", "c")])
    assert len(take_all(broker, queue, 3)) == 3


def test_repeated_request_stores_only_what_is_new(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    entries = [Entry(f"m{i}", "g", f"id{i}") for i in range(6)]
    broker.send(queue, entries[:3])
    assert broker.send(queue, entries) == [OK] * 6
    assert bodies(take_all(broker, queue, 6)) == [f"m{i}" for i in range(6)]
