"""A message received too often moves to the dead-letter queue, if there is one."""

from __future__ import annotations

import time

from sqspipes.brokers.base import Broker
from sqspipes.defaults import MAX_RECEIVES
from sqspipes.testing.broker_contract.steps import (
    PATIENCE,
    bodies,
    made,
    moment,
    put,
    take,
    take_one,
    with_dead_letters,
)


def _give_back(broker: Broker, queue: str, times: int) -> None:
    for _ in range(times):
        delivery = take_one(broker, queue)
        broker.extend(queue, [(delivery.receipt, 0)])


def test_message_received_too_often_moves_to_the_dead_letter_queue(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 2)
    put(broker, queue, "a", group="g")
    _give_back(broker, queue, 2)
    assert take(broker, queue) == []
    letter = take_one(broker, dead)
    assert (letter.queue, letter.body, letter.group) == (dead, "a", "g")


def test_lease_that_ends_counts_as_a_receive(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a")
    take_one(broker, queue, lease=moment(broker))
    deadline = time.monotonic() + PATIENCE
    while not (letters := take(broker, dead)) and time.monotonic() < deadline:
        assert take(broker, queue, wait=moment(broker)) == []
    assert bodies(letters) == ["a"]


def test_message_may_be_received_as_often_as_allowed(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 5)
    put(broker, queue, "a")
    _give_back(broker, queue, 4)
    delivery = take_one(broker, queue)
    assert delivery.receives == 5
    broker.ack(queue, [delivery.receipt])
    assert take(broker, queue) + take(broker, dead) == []


def test_last_allowed_receive_can_be_acknowledged(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a")
    broker.ack(queue, [take_one(broker, queue).receipt])
    assert take(broker, queue) + take(broker, dead) == []


def test_dead_letter_makes_way_for_the_next_of_its_group(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a", "b", group="g")
    _give_back(broker, queue, 1)
    assert bodies(take(broker, queue)) == ["b"]
    assert bodies(take(broker, dead)) == ["a"]


def test_dead_letter_can_be_received_again_and_again(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a")
    _give_back(broker, queue, 1)
    assert take(broker, queue) == []
    _give_back(broker, dead, 3)
    broker.ack(dead, [take_one(broker, dead).receipt])
    assert take(broker, dead) == []


def test_queue_without_dead_letters_gives_a_message_back_for_ever(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    _give_back(broker, queue, MAX_RECEIVES + 1)
    assert take_one(broker, queue).receives == MAX_RECEIVES + 2
