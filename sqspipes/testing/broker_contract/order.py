"""Messages of one group leave in order, one receive at a time."""

from __future__ import annotations

from sqspipes.brokers.base import OK, Broker, Entry
from sqspipes.testing.broker_contract.steps import bodies, made, moment, put, take, take_all, take_one


def test_group_leaves_in_the_order_in_which_it_came(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    names = [f"m{i:02}" for i in range(25)]
    put(broker, queue, *names, group="g")
    assert bodies(take_all(broker, queue, 25)) == names


def test_groups_that_share_requests_keep_their_orders(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    for i in range(6):
        entries = [Entry(f"{group}{i}", group, f"{group}{i}") for group in "abc"]
        assert broker.send(queue, entries) == [OK] * 3
    taken = bodies(take_all(broker, queue, 18))
    for group in "abc":
        assert [body for body in taken if body.startswith(group)] == [f"{group}{i}" for i in range(6)]


def test_one_receive_takes_several_of_a_group_in_order(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abcde", group="g")
    assert bodies(take(broker, queue)) == list("abcde")


def test_rest_of_a_group_waits_while_one_is_in_flight(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a", "b", group="g")
    first = take_one(broker, queue)
    assert take(broker, queue) == []
    broker.ack(queue, [first.receipt])
    assert bodies(take(broker, queue)) == ["b"]


def test_message_that_comes_later_waits_behind_its_group(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a", group="g")
    first = take_one(broker, queue)
    put(broker, queue, "b", group="g")
    assert take(broker, queue) == []
    broker.ack(queue, [first.receipt])
    assert bodies(take(broker, queue)) == ["b"]


def test_blocked_group_does_not_stop_other_groups(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *[f"a{i:02}" for i in range(30)], group="a")
    take_one(broker, queue)
    put(broker, queue, "b", group="b")
    put(broker, queue, "c", group="c")
    assert sorted(bodies(take(broker, queue))) == ["b", "c"]


def test_group_is_free_only_when_all_that_a_receive_took_is_settled(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    first, second = take(broker, queue, 2)
    broker.ack(queue, [first.receipt])
    assert take(broker, queue) == []
    broker.ack(queue, [second.receipt])
    assert bodies(take(broker, queue)) == ["c"]


def test_message_given_back_waits_for_its_group_mates_in_flight(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    first, second = take(broker, queue, 2)
    broker.extend(queue, [(first.receipt, 0)])
    assert take(broker, queue) == []
    broker.extend(queue, [(second.receipt, 0)])
    assert bodies(take(broker, queue)) == ["a", "b", "c"]


def test_message_given_back_keeps_its_place(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    first = take_one(broker, queue)
    put(broker, queue, "d", group="g")
    broker.extend(queue, [(first.receipt, 0)])
    assert bodies(take_all(broker, queue, 4)) == list("abcd")


def test_message_whose_lease_ended_keeps_its_place(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    take_one(broker, queue, lease=moment(broker))
    assert bodies(take(broker, queue, wait=5)) == list("abc")


def test_last_of_a_batch_acknowledged_first_leaves_the_rest_in_order(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    first, second, third = take(broker, queue)
    broker.ack(queue, [third.receipt])
    broker.extend(queue, [(second.receipt, 0), (first.receipt, 0)])
    assert bodies(take(broker, queue)) == ["a", "b"]


def test_group_goes_on_behind_a_last_message_that_was_acknowledged_first(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    first, second, third = take(broker, queue)
    broker.ack(queue, [third.receipt])
    put(broker, queue, "d", group="g")
    broker.ack(queue, [second.receipt])
    put(broker, queue, "e", group="g")
    broker.extend(queue, [(first.receipt, 0)])
    assert bodies(take_all(broker, queue, 3)) == ["a", "d", "e"]


def test_groups_of_the_same_name_in_two_queues_are_two_groups(broker: Broker, domain: str) -> None:
    left, right = made(broker, domain, "left", "right")
    put(broker, left, "a", group="g")
    put(broker, right, "b", group="g")
    take_one(broker, left)
    assert bodies(take(broker, right)) == ["b"]
