"""Queues of SQS are made, compared and found, also with few rights."""

from __future__ import annotations

import logging

import pytest

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker, Entry, Kind, QueueSpec
from sqspipes.errors import (
    BrokerUnavailableError,
    CredentialsError,
    QueueMissingError,
)
from sqspipes.testing.broker_contract.steps import kinds, made, put, take
from tests.conftest import TRANSPORTS, MakeBroker
from tests.servers import (
    Proxy,
    error,
    forwarded,
)


@pytest.fixture
def broker(make_broker: MakeBroker, proxy: Proxy) -> Broker:
    """A broker behind the proxy."""
    return make_broker("sqs", endpoint_url=proxy.url)


def test_queue_is_made_as_the_promises_need_it(broker: Broker, proxy: Proxy, domain: str) -> None:
    queue, dead = f"{domain}--task.fifo", f"{domain}--task--dead.fifo"
    tags = {"sqspipes:domain": domain}
    spec = QueueSpec(queue, lease=90.0, dead_letters=dead, tags=tags, attributes={"KmsMasterKeyId": "my-key"})
    broker.declare([spec, QueueSpec(dead, high_throughput=False)])
    first, second = [request.json for request in proxy.requests("CreateQueue")]
    assert (first["QueueName"], second["QueueName"]) == (dead, queue)
    assert "RedrivePolicy" not in first["Attributes"]
    assert second["tags"] == tags
    policy = second["Attributes"].pop("RedrivePolicy")
    assert f':{dead}"' in policy and '"maxReceiveCount": 50' in policy
    assert second["Attributes"] == {
        "FifoQueue": "true",
        "ContentBasedDeduplication": "false",
        "MessageRetentionPeriod": "1209600",
        "VisibilityTimeout": "90",
        "DeduplicationScope": "messageGroup",
        "FifoThroughputLimit": "perMessageGroupId",
        "KmsMasterKeyId": "my-key",
    }


def test_existing_queue_is_found_before_it_is_made(broker: Broker, proxy: Proxy, domain: str) -> None:
    made(broker, domain)
    proxy.forget()
    made(broker, domain)
    assert proxy.counts["CreateQueue"] == 0


def test_found_queues_are_never_changed_without_create(
    make_broker: MakeBroker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(make_broker("sqs"), domain)
    broker = make_broker("sqs", endpoint_url=proxy.url)
    broker.declare([QueueSpec(queue, lease=3.0, tags={"a": "b"})], create=False)
    put(broker, queue, "a")
    with pytest.raises(QueueMissingError):
        broker.declare([QueueSpec(f"{domain}--missing.fifo")], create=False)
    assert not {"CreateQueue", "SetQueueAttributes", "TagQueue"} & set(proxy.counts)


def test_url_is_asked_for_once(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.forget()
    for i in range(3):
        put(broker, queue, f"m{i}")
        take(broker, queue)
    assert proxy.counts["GetQueueUrl"] == 0


def test_other_settings_are_told_in_one_warning(
    make_broker: MakeBroker, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, dead = f"{domain}--task.fifo", f"{domain}--task--dead.fifo"
    attributes = {"MessageRetentionPeriod": "345600"}
    there = QueueSpec(queue, dead_letters=dead, max_receives=3, high_throughput=False, attributes=attributes)
    make_broker("sqs").declare([QueueSpec(dead), there])
    caplog.set_level(logging.INFO, "sqspipes")
    broker = make_broker("sqs")
    for _ in range(2):
        broker.declare([QueueSpec(dead), QueueSpec(queue, lease=7.0, dead_letters=dead)])
    (warning,) = caplog.messages
    assert dead not in warning
    for difference in (
        f"{queue}: MessageRetentionPeriod is 345600, not 1209600",
        "maxReceiveCount is 3, not 50",
        "DeduplicationScope is queue, not messageGroup",
        "FifoThroughputLimit is perQueue, not perMessageGroupId",
    ):
        assert difference in warning
    assert "VisibilityTimeout" not in warning


def test_queue_without_a_redrive_policy_is_told(
    broker: Broker, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, dead = made(broker, domain, "task", "dead")
    broker.declare([QueueSpec(queue, dead_letters=dead), QueueSpec(dead)])
    (warning,) = caplog.messages
    assert f"{queue}: it has no RedrivePolicy" in warning


def test_smaller_queue_says_so(broker: Broker, domain: str) -> None:
    queue = f"{domain}--task.fifo"
    broker.declare([QueueSpec(queue, attributes={"MaximumMessageSize": "2048"})])
    assert broker.message_bytes(queue) == 2048
    answers = broker.send(queue, [Entry("x" * 2048, "a", "a"), Entry("x" * 2049, "b", "b")])
    assert kinds(answers) == [Kind.OK, Kind.NEVER]


def test_creator_that_was_slower_uses_the_queue(broker: Broker, proxy: Proxy, domain: str) -> None:
    queue = f"{domain}--task.fifo"
    broker.declare([QueueSpec(queue, attributes={"DelaySeconds": "1"})])
    broker.close()
    late = open_broker("sqs://", endpoint_url=proxy.url, aws_key="x", aws_secret="x", aws_region="us-west-2")
    proxy.plan("GetQueueUrl", error(400, "QueueDoesNotExist"))
    late.declare([QueueSpec(queue, attributes={"DelaySeconds": "0"})])
    assert queue in late.queue_url(queue)
    late.close()


def test_name_that_was_deleted_just_now_may_be_tried_again(broker: Broker, proxy: Proxy, domain: str) -> None:
    proxy.plan("CreateQueue", error(400, "AWS.SimpleQueueService.QueueDeletedRecently", "wait 60 seconds"))
    with pytest.raises(BrokerUnavailableError, match="wait 60 seconds"):
        made(broker, domain)
    made(broker, domain)


def test_queue_made_just_now_may_not_be_there_yet(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("SendMessageBatch", error(400, "QueueDoesNotExist"))
    with pytest.raises(BrokerUnavailableError):
        put(broker, queue, "a")
    put(broker, queue, "a")


def test_missing_right_is_named_with_its_queue(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("DeleteMessageBatch", error(403, "AccessDenied"))
    with pytest.raises(CredentialsError, match=f"no right to sqs:DeleteMessage on {queue}"):
        broker.ack(queue, ["receipt"])


def test_queue_can_be_used_without_the_right_to_read_its_settings(
    make_broker: MakeBroker, proxy: Proxy, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, dead = made(make_broker("sqs"), domain, "task", "dead")
    broker = make_broker("sqs", endpoint_url=proxy.url)
    proxy.always("GetQueueAttributes", error(403, "AccessDenied"))
    broker.declare([QueueSpec(queue, dead_letters=dead), QueueSpec(dead)])
    assert broker.message_bytes(queue) == 1_048_576
    (line,) = caplog.messages
    assert "sqs:GetQueueAttributes" in line


# Where a queue knows deduplication ids


def sent(broker: Broker, proxy: Proxy, queue: str) -> list[str]:
    """Send one id in two groups, and one that is its own group; return the deduplication ids that were sent."""
    proxy.forget()
    entries = [Entry("a", "g", "id"), Entry("b", "h", "id"), Entry("c", "id", "id")]
    assert kinds(broker.send(queue, entries)) == [Kind.OK] * 3
    (request,) = proxy.requests("SendMessageBatch")
    return [entry["MessageDeduplicationId"] for entry in request.json["Entries"]]


@pytest.fixture(params=TRANSPORTS)
def by_transport(request: pytest.FixtureRequest, make_broker: MakeBroker, proxy: Proxy) -> Broker:
    """A broker behind the proxy, by either transport."""
    return make_broker(request.param, endpoint_url=proxy.url)


def test_ids_go_as_they_are_where_each_group_has_its_own(
    by_transport: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(by_transport, domain)
    assert sent(by_transport, proxy, queue) == ["id", "id", "id"]


def test_ids_differ_by_group_where_a_queue_knows_them_together(
    by_transport: Broker, proxy: Proxy, domain: str
) -> None:
    queue = f"{domain}--task.fifo"
    by_transport.declare([QueueSpec(queue, high_throughput=False)])
    first = sent(by_transport, proxy, queue)
    assert len(set(first)) == 3 and first[2] == "id"
    assert sent(by_transport, proxy, queue) == first
    assert len(take(by_transport, queue, wait=1)) == 3


@pytest.mark.parametrize("declared", [True, False])
def test_ids_differ_by_group_where_an_existing_queue_says_so(
    declared: bool, make_broker: MakeBroker, by_transport: Broker, proxy: Proxy, domain: str
) -> None:
    queue = f"{domain}--task.fifo"
    make_broker("sqs").declare([QueueSpec(queue, high_throughput=False)])
    if declared:
        by_transport.declare([QueueSpec(queue)])
    assert len(set(sent(by_transport, proxy, queue))) == 3


@pytest.mark.parametrize("declared", [True, False])
def test_ids_differ_by_group_where_settings_may_not_be_read(
    declared: bool, make_broker: MakeBroker, by_transport: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(make_broker("sqs"), domain)
    proxy.always("GetQueueAttributes", error(403, "AccessDenied"))
    if declared:
        by_transport.declare([QueueSpec(queue)])
    assert len(set(sent(by_transport, proxy, queue))) == 3
    sent(by_transport, proxy, queue)
    assert proxy.counts["GetQueueAttributes"] == 0  # it was told so once


def test_scope_is_asked_for_once_and_with_the_size(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    sent(broker, proxy, queue)
    assert proxy.counts["GetQueueAttributes"] == 1
    sent(broker, proxy, queue)
    assert proxy.counts["GetQueueAttributes"] == 0


def test_dead_letter_queue_is_found_without_the_right_to_read_it(
    broker: Broker, proxy: Proxy, domain: str
) -> None:
    proxy.plan("GetQueueAttributes", error(403, "AccessDenied"))
    queue, dead = f"{domain}--task.fifo", f"{domain}--task--dead.fifo"
    broker.declare([QueueSpec(queue, dead_letters=dead), QueueSpec(dead)])
    policy = proxy.requests("CreateQueue")[1].json["Attributes"]["RedrivePolicy"]
    assert f"arn:aws:sqs:us-west-2:000000000000:{dead}" in policy


def test_queue_is_made_without_the_right_to_tag_it(
    broker: Broker, proxy: Proxy, domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.plan("CreateQueue", error(403, "AccessDenied"), forwarded)
    broker.declare([QueueSpec(f"{domain}--task.fifo", tags={"a": "b"})])
    (line,) = caplog.messages
    assert "sqs:TagQueue" in line
