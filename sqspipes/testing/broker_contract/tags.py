"""Tags of queues are set, replaced, removed and kept."""

from __future__ import annotations

import pytest

from sqspipes.brokers.base import Broker, QueueSpec
from sqspipes.errors import QueueMissingError
from sqspipes.testing.broker_contract.steps import Another, made, put

#: All the characters that SQS allows in a tag.
ODD = "sqspipes:paused:a_b-c.d/e=f+g@h 7"


def test_queue_made_without_tags_has_none(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    assert broker.tags(queue) == {}


def test_tags_are_set_replaced_and_removed(broker: Broker, domain: str) -> None:
    queue, other = made(broker, domain, "task", "other")
    broker.tag(queue, {ODD: "2026-11-22T09:16:55+00:00", "b": "1"})
    broker.tag(queue, {"b": "2", "c": "3"})
    assert broker.tags(queue) == {ODD: "2026-11-22T09:16:55+00:00", "b": "2", "c": "3"}
    broker.tag(queue, {ODD: None, "c": None, "d": "4"})
    assert broker.tags(queue) == {"b": "2", "d": "4"}
    assert broker.tags(other) == {}


def test_last_tag_can_be_removed_and_one_that_is_not_there_too(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.tag(queue, {"a": "1"})
    broker.tag(queue, {"a": None})
    broker.tag(queue, {"a": None, "b": None})
    assert broker.tags(queue) == {}


def test_tags_of_creation_are_there_and_stay(broker: Broker, domain: str) -> None:
    queue = f"{domain}--task.fifo"
    broker.declare([QueueSpec(queue, tags={"team": "blue", "sqspipes:domain": domain})])
    broker.tag(queue, {"more": "1"})
    broker.declare([QueueSpec(queue, tags={"team": "red"})])
    assert broker.tags(queue) == {"team": "blue", "sqspipes:domain": domain, "more": "1"}


def test_purge_leaves_the_tags(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    broker.tag(queue, {"a": "1"})
    broker.purge(queue)
    assert broker.tags(queue) == {"a": "1"}
    broker.tag(queue, {"a": "2"})
    assert broker.tags(queue) == {"a": "2"}


def test_queue_made_again_has_no_old_tags(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.tag(queue, {"a": "1"})
    broker.purge(queue)
    broker.delete(queue)
    made(broker, domain)
    assert broker.tags(queue) == {}


def test_tags_of_a_missing_queue_name_it(broker: Broker, domain: str) -> None:
    missing = f"{domain}--missing.fifo"
    with pytest.raises(QueueMissingError, match=missing):
        broker.tags(missing)
    with pytest.raises(QueueMissingError, match=missing):
        broker.tag(missing, {"a": "1"})
    with pytest.raises(QueueMissingError, match=missing):
        broker.tag(missing, {"a": None})


def test_tags_survive_a_close(another: Another, domain: str) -> None:
    first = another()
    (queue,) = made(first, domain)
    first.tag(queue, {"a": "1"})
    first.close()
    assert another().tags(queue) == {"a": "1"}


def test_second_broker_on_the_store_sees_the_tags(another: Another, domain: str) -> None:
    first, second = another(), another()
    (queue,) = made(first, domain)
    assert second.tags(queue) == {}
    first.tag(queue, {"a": "1"})
    assert second.tags(queue) == {"a": "1"}
