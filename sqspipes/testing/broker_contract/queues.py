"""Queues are made, found, counted, emptied and deleted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sqspipes.brokers.base import OK, Broker, Depth, Entry, QueueSpec
from sqspipes.errors import BrokerClosedError, QueueMissingError
from sqspipes.testing.broker_contract.steps import (
    bodies,
    made,
    moment,
    outlast,
    put,
    take,
    take_one,
    with_dead_letters,
)


def test_declaring_again_changes_nothing(broker: Broker, domain: str) -> None:
    queue, _ = with_dead_letters(broker, domain, 3)
    put(broker, queue, "a")
    with_dead_letters(broker, domain, 3)
    assert bodies(take(broker, queue)) == ["a"]


def test_queue_with_other_settings_is_used_as_it_is(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 3)
    put(broker, queue, "a")
    broker.declare([QueueSpec(queue, lease=99.0, dead_letters=dead, max_receives=7), QueueSpec(dead)])
    assert bodies(take(broker, queue)) == ["a"]


def test_dead_letter_queue_may_stand_anywhere_among_the_specs(broker: Broker, domain: str) -> None:
    dead = QueueSpec(f"{domain}--task--dead.fifo")
    tasks = [QueueSpec(f"{domain}--task--p{i}.fifo", dead_letters=dead.name) for i in (1, 2)]
    broker.declare([tasks[0], dead, tasks[1]])
    assert sorted(broker.names(domain)) == sorted(spec.name for spec in (*tasks, dead))


def test_many_queues_are_made_at_once(broker: Broker, domain: str) -> None:
    names = made(broker, domain, *[f"task{i}" for i in range(30)])
    assert sorted(broker.names(f"{domain}--")) == sorted(names)


def test_existing_queues_satisfy_the_demand(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.declare([QueueSpec(queue)], create=False)


def test_missing_queue_is_not_made_on_demand(broker: Broker, domain: str) -> None:
    (there,) = made(broker, domain, "there")
    missing = f"{domain}--missing.fifo"
    with pytest.raises(QueueMissingError, match=missing) as caught:
        broker.declare([QueueSpec(there), QueueSpec(missing)], create=False)
    assert caught.value.queue == missing
    assert broker.names(domain) == [there]


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda broker, queue: broker.send(queue, [Entry("a", "g", "id")]), id="send"),
        pytest.param(lambda broker, queue: take(broker, queue), id="receive"),
        pytest.param(lambda broker, queue: take(broker, queue, wait=5), id="wait"),
        pytest.param(lambda broker, queue: broker.ack(queue, ["receipt"]), id="ack"),
        pytest.param(lambda broker, queue: broker.extend(queue, [("receipt", 1.0)]), id="extend"),
        pytest.param(lambda broker, queue: broker.depth(queue), id="depth"),
        pytest.param(lambda broker, queue: broker.message_bytes(queue), id="message_bytes"),
        pytest.param(lambda broker, queue: broker.queue_url(queue), id="queue_url"),
        pytest.param(lambda broker, queue: broker.purge(queue), id="purge"),
    ],
)
def test_missing_queue_is_named(broker: Broker, domain: str, use: Callable[[Broker, str], object]) -> None:
    missing = f"{domain}--missing.fifo"
    with pytest.raises(QueueMissingError, match=missing) as caught:
        use(broker, missing)
    assert caught.value.queue == missing


def test_names_lists_by_prefix(broker: Broker, domain: str) -> None:
    left, right, other = made(broker, domain, "left", "left-2", "other")
    assert sorted(broker.names(f"{domain}--left")) == sorted([left, right])
    assert sorted(broker.names(domain)) == sorted([left, right, other])
    assert broker.names(f"{domain}--nothing") == []


def test_names_takes_the_prefix_to_the_letter(broker: Broker, domain: str) -> None:
    made(broker, domain, "a_b", "axb")
    assert broker.names(f"{domain}--a_") == [f"{domain}--a_b.fifo"]
    assert broker.names(f"{domain}--A") == []


def test_each_queue_has_an_address(broker: Broker, domain: str) -> None:
    left, right = made(broker, domain, "left", "right")
    assert left in broker.queue_url(left)
    assert broker.queue_url(left) != broker.queue_url(right)


def test_largest_body_is_what_the_limits_say(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert broker.message_bytes(queue) == broker.limits.message_bytes == 1_048_576


def test_depth_counts_what_waits_and_what_is_in_flight(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert broker.depth(queue) == Depth(0, 0)
    put(broker, queue, *"abcde")
    assert broker.depth(queue) == Depth(5, 0)
    taken = take(broker, queue, 3)
    assert broker.depth(queue) == Depth(2, 3)
    broker.ack(queue, [taken[0].receipt])
    broker.extend(queue, [(taken[1].receipt, 0)])
    assert broker.depth(queue) == Depth(3, 1)


def test_message_blocked_behind_its_group_counts_as_waiting(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abc", group="g")
    take_one(broker, queue)
    assert broker.depth(queue) == Depth(2, 1)


def test_message_whose_lease_ended_counts_as_waiting(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    take_one(broker, queue, lease=moment(broker))
    outlast(broker, domain)
    assert broker.depth(queue) == Depth(1, 0)


def test_purge_deletes_every_message_and_leaves_the_queue(broker: Broker, domain: str) -> None:
    queue, other = made(broker, domain, "task", "other")
    put(broker, queue, *"abc")
    put(broker, other, "d")
    take_one(broker, queue, lease=moment(broker))
    broker.purge(queue)
    assert take(broker, queue, wait=2 * moment(broker)) == []
    assert broker.depth(queue) == Depth(0, 0)
    assert bodies(take(broker, other)) == ["d"]
    put(broker, queue, "e")
    assert bodies(take(broker, queue)) == ["e"]


def test_group_is_free_after_a_purge(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a", "b", group="g")
    take_one(broker, queue)
    broker.purge(queue)
    put(broker, queue, "c", group="g")
    assert bodies(take(broker, queue)) == ["c"]


def test_deleted_queue_is_not_there_any_more(broker: Broker, domain: str) -> None:
    queue, other = made(broker, domain, "task", "other")
    put(broker, queue, "a")
    broker.delete(queue)
    assert broker.names(domain) == [other]
    with pytest.raises(QueueMissingError):
        take(broker, queue)
    with pytest.raises(QueueMissingError):
        broker.send(queue, [Entry("a", "g", "id")])


def test_deleting_a_missing_queue_is_no_error(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.delete(queue)
    broker.delete(queue)
    broker.delete(f"{domain}--never.fifo")


def test_queue_made_again_is_empty(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    broker.delete(queue)
    made(broker, domain)
    assert take(broker, queue) == []
    assert broker.send(queue, [Entry("b", "g-a", "id-a")]) == [OK]
    assert bodies(take(broker, queue)) == ["b"]


def test_closing_twice_is_no_error(broker: Broker, domain: str) -> None:
    made(broker, domain)
    broker.close()
    broker.close()


def test_broker_that_was_never_used_can_be_closed(broker: Broker) -> None:
    broker.interrupt()
    broker.close()


def test_closed_broker_says_so(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.close()
    with pytest.raises(BrokerClosedError):
        broker.send(queue, [Entry("a", "g", "id")])
    with pytest.raises(BrokerClosedError):
        take(broker, queue)
