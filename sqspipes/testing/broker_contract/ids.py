"""A message's id is its own: the same at each receive, and that of no other message in any queue, at any time."""

from __future__ import annotations

from collections.abc import Iterable

from sqspipes.brokers.base import Broker
from sqspipes.messages.message import Delivery
from sqspipes.testing.broker_contract.steps import made, put, take_all, take_one, with_dead_letters


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def test_id_is_the_same_at_each_receive(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    for _ in range(2):
        broker.extend(queue, [(first.receipt, 0)])
        again = take_one(broker, queue)
        assert again.id == first.id
        first = again


def test_ids_differ_over_queues_and_groups(broker: Broker, domain: str) -> None:
    queues = made(broker, domain, "left", "right")
    for queue in queues:
        put(broker, queue, "a", "b")
        put(broker, queue, "c", "d", group="g")
    found = [id for queue in queues for id in ids(take_all(broker, queue, 4))]
    assert len(set(found)) == 8


def test_ids_are_not_given_again_after_a_purge(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    broker.purge(queue)
    put(broker, queue, "b")
    assert take_one(broker, queue).id != first.id


def test_ids_are_not_given_again_when_all_was_acknowledged(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    found: list[str] = []
    for body in "abc":
        put(broker, queue, body)
        found += ids(take_all(broker, queue, 1))
    assert len(set(found)) == 3


def test_dead_letter_and_what_comes_after_it_have_different_ids(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a", "b", group="g")
    first = take_one(broker, queue)
    broker.extend(queue, [(first.receipt, 0)])
    second = take_one(broker, queue)
    assert second.body == "b"
    assert len({first.id, second.id}) == len({take_one(broker, dead).id, second.id}) == 2
