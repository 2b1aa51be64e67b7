"""What brokers of several threads, processes and lifetimes share is the store."""

from __future__ import annotations

from sqspipes.testing.broker_contract.steps import (
    PATIENCE,
    Another,
    bodies,
    in_thread,
    made,
    moment,
    put,
    take,
    take_one,
)


def test_message_survives_a_close(another: Another, domain: str) -> None:
    first = another()
    (queue,) = made(first, domain)
    put(first, queue, "a", "b", group="g")
    take_one(first, queue, lease=moment(first))
    first.close()
    assert bodies(take(another(), queue, wait=5)) == ["a", "b"]


def test_second_broker_on_the_store_sees_the_message(another: Another, domain: str) -> None:
    first, second = another(), another()
    (queue,) = made(first, domain)
    put(first, queue, "a")
    assert bodies(take(second, queue, wait=1)) == ["a"]


def test_what_one_broker_holds_no_other_one_gets(another: Another, domain: str) -> None:
    first, second = another(), another()
    (queue,) = made(first, domain)
    put(first, queue, "a", "b", group="g")
    delivery = take_one(first, queue)
    assert take(second, queue) == []
    second.ack(queue, [delivery.receipt])
    assert bodies(take(second, queue)) == ["b"]


def test_waiting_receive_sees_what_another_broker_sends(another: Another, domain: str) -> None:
    first, second = another(), another()
    (queue,) = made(first, domain)
    receive = in_thread(lambda: take(second, queue, wait=10))
    put(first, queue, "a")
    assert bodies(receive.result(PATIENCE)) == ["a"]
