"""A received message is invisible for its lease, and comes back after it."""

from __future__ import annotations

import time

from sqspipes.brokers.base import OK, Broker, Kind
from sqspipes.testing.broker_contract.steps import (
    bodies,
    kinds,
    made,
    moment,
    outlast,
    put,
    take,
    take_one,
)


def test_message_in_flight_is_invisible(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    take_one(broker, queue)
    assert take(broker, queue, wait=moment(broker)) == []


def test_unacknowledged_message_comes_back(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    began = time.monotonic()
    first = take_one(broker, queue, lease=moment(broker))
    second = take_one(broker, queue, wait=10)
    assert 0.9 * moment(broker) < time.monotonic() - began < 5
    assert (second.id, second.body, second.group) == (first.id, first.body, first.group)
    assert second.receipt != first.receipt
    assert (first.receives, second.receives) == (1, 2)


def test_sent_time_stays_the_same_over_receives(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    broker.extend(queue, [(first.receipt, 0)])
    assert take_one(broker, queue).sent == first.sent


def test_message_given_back_comes_back_at_once(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    assert broker.extend(queue, [(first.receipt, 0)]) == [OK]
    (second,) = take(broker, queue, wait=1)
    assert (second.id, second.receives) == (first.id, 2)


def test_extended_lease_counts_from_the_call(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=moment(broker))
    assert broker.extend(queue, [(delivery.receipt, 4 * moment(broker))]) == [OK]
    assert take(broker, queue, wait=2 * moment(broker)) == []
    assert broker.ack(queue, [delivery.receipt]) == [OK]


def test_lease_can_be_made_shorter(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=60)
    assert broker.extend(queue, [(delivery.receipt, moment(broker))]) == [OK]
    assert take_one(broker, queue, wait=5).receives == 2


def test_extended_message_can_be_extended_again(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=moment(broker))
    for _ in range(3):
        assert broker.extend(queue, [(delivery.receipt, 30)]) == [OK]
    assert broker.ack(queue, [delivery.receipt]) == [OK]


def test_longest_lease_is_allowed(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=broker.limits.longest_lease)
    assert broker.extend(queue, [(delivery.receipt, broker.limits.longest_lease - 60)]) == [OK]


def test_older_receipt_is_gone_after_a_newer_receive(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    old = take_one(broker, queue, lease=moment(broker))
    new = take_one(broker, queue)
    assert kinds(broker.ack(queue, [old.receipt])) == [Kind.GONE]
    assert kinds(broker.extend(queue, [(old.receipt, 0)])) == [Kind.GONE]
    assert take(broker, queue) == []
    assert broker.ack(queue, [new.receipt]) == [OK]


def test_receipt_is_gone_when_its_lease_has_ended(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=moment(broker))
    outlast(broker, domain)
    assert kinds(broker.ack(queue, [delivery.receipt])) == [Kind.GONE]
    assert bodies(take(broker, queue)) == ["a"]


def test_lease_that_has_ended_cannot_be_extended(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=moment(broker))
    outlast(broker, domain)
    assert kinds(broker.extend(queue, [(delivery.receipt, 30)])) == [Kind.GONE]
    assert bodies(take(broker, queue)) == ["a"]


def test_acknowledged_message_cannot_be_extended(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue)
    broker.ack(queue, [delivery.receipt])
    assert kinds(broker.extend(queue, [(delivery.receipt, 0)])) == [Kind.GONE]
    assert take(broker, queue) == []


def test_acknowledging_again_does_no_harm(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a", "b", group="g")
    delivery = take_one(broker, queue)
    broker.ack(queue, [delivery.receipt])
    assert kinds(broker.ack(queue, [delivery.receipt]))[0] in (Kind.OK, Kind.GONE)
    assert bodies(take(broker, queue)) == ["b"]


def test_unknown_receipt_is_gone(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert kinds(broker.ack(queue, ["no-such-receipt"])) == [Kind.GONE]
    assert kinds(broker.extend(queue, [("no-such-receipt", 10)])) == [Kind.GONE]


def test_acknowledgements_are_answered_one_by_one_in_order(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc")
    old = take(broker, queue, 1, lease=moment(broker))[0]
    others = take(broker, queue)
    again = take_one(broker, queue)
    receipts = [others[0].receipt, old.receipt, others[1].receipt, again.receipt]
    assert kinds(broker.ack(queue, receipts)) == [Kind.OK, Kind.GONE, Kind.OK, Kind.OK]


def test_extensions_are_answered_one_by_one_in_order(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc")
    old = take(broker, queue, 1, lease=moment(broker))[0]
    others = take(broker, queue)
    take_one(broker, queue)
    leases = [(others[0].receipt, 0.0), (old.receipt, 9.0), (others[1].receipt, 30.0)]
    assert kinds(broker.extend(queue, leases)) == [Kind.OK, Kind.GONE, Kind.OK]
    assert bodies(take(broker, queue)) == [others[0].body]


def test_each_lease_of_a_receive_stands_alone(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc")
    deliveries = {delivery.body: delivery for delivery in take(broker, queue, lease=moment(broker))}
    broker.extend(queue, [(deliveries["b"].receipt, 30)])
    broker.ack(queue, [deliveries["c"].receipt])
    assert bodies(take(broker, queue, wait=5)) == ["a"]
