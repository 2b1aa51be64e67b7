"""What a client asks of its broker: when it begins, which queues it makes, what it does without rights."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from sqspipes import Broker, CredentialsError, QueueMissingError, TaskClient
from tests.conftest import AWS
from tests.integration.support import Seen, piped
from tests.servers import Ministack, Proxy, Server, error, forwarded

SQS = {"broker": "sqs://", **AWS}

#: What a run needs; a batch has the name of the single request's right.
NEEDED = ("SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueUrl")


def task(value: Any) -> None:
    """Take a value."""


@contextlib.contextmanager
def raw_client(server: Ministack) -> Iterator[Any]:
    """The driver itself, to look at queues from outside."""
    sqs = boto3.client(
        "sqs", "us-west-2", endpoint_url=server.url, aws_access_key_id="x", aws_secret_access_key="x"
    )
    with contextlib.closing(sqs):
        yield sqs


def only(proxy: Proxy, *rights: str) -> None:
    """Let the proxy refuse all requests but those."""
    proxy.always("", error(403, "AccessDenied", "User is not authorized to perform this"))
    for right in rights:
        proxy.always(right, forwarded)
        proxy.always(f"{right}Batch", forwarded)


def test_client_and_tasks_touch_no_network(domain: str, proxy: Proxy) -> None:
    client = TaskClient(domain, endpoint_url=proxy.url, **SQS).register_tasks([task])
    assert client.queue_names == [f"{domain}--task.fifo", f"{domain}--task--dead.fifo"]
    repr(client)
    client.close()
    assert proxy.requests() == []


def test_queues_are_made_at_first_use(domain: str, proxy: Proxy) -> None:
    with TaskClient(domain, endpoint_url=proxy.url, **SQS).register_tasks([task]) as client:
        client.put(1)
    made = [request.json["QueueName"] for request in proxy.requests("CreateQueue")]
    assert sorted(made) == sorted(client.queue_names)


def test_queues_that_are_there_are_looked_up_not_made_again(domain: str, proxy: Proxy) -> None:
    for _ in range(2):
        proxy.forget()
        with TaskClient(domain, endpoint_url=proxy.url, **SQS).register_tasks([task]) as client:
            client.put(1)
            client.put(2)
    assert proxy.counts["GetQueueUrl"] == 2
    assert proxy.counts["CreateQueue"] == 0


def test_create_queues_makes_them_all(domain: str, broker: Broker) -> None:
    three = {"method": task, "priorities": 3}
    with (
        TaskClient(domain, broker=broker).register_tasks([three]) as owner,
        TaskClient(domain, broker=broker, create=False).register_tasks([three]) as guest,
    ):
        owner.create_queues()
        guest.create_queues()
        assert sorted(broker.names(f"{domain}--")) == sorted(owner.queue_names)


def test_new_queues_have_the_attributes_and_tags_that_are_asked_for(domain: str, ministack: Server) -> None:
    wanted = {"KmsDataKeyReusePeriodSeconds": "600"}
    options: dict[str, Any] = {"queue_attributes": wanted, "tags": {"team": "blue"}}
    with TaskClient(domain, endpoint_url=ministack.url, **SQS, **options) as client:
        url = client.register_tasks([task]).queues[0]
    with raw_client(ministack) as sqs:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        tags = sqs.list_queue_tags(QueueUrl=url)["Tags"]
    assert attributes.items() >= {**wanted, "DeduplicationScope": "messageGroup"}.items()
    assert tags == {"team": "blue", "sqspipes:domain": domain}


@pytest.mark.parametrize(("high", "limit"), [(True, "perMessageGroupId"), (False, "perQueue")])
def test_throughput_is_high_unless_it_is_turned_off(
    high: bool, limit: str, domain: str, proxy: Proxy
) -> None:
    with TaskClient(domain, endpoint_url=proxy.url, high_throughput=high, **SQS) as client:
        client.register_tasks([task]).create_queues()
    asked = [request.json["Attributes"] for request in proxy.requests("CreateQueue")]
    assert {attributes.get("FifoThroughputLimit", "perQueue") for attributes in asked} == {limit}


def test_missing_queue_is_an_error_with_its_name_when_none_may_be_made(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, task, create=False) as client:
        with pytest.raises(QueueMissingError, match=rf"{domain}--task(--dead)?\.fifo"):
            client.put(1)
        with pytest.raises(QueueMissingError, match=rf"{domain}--task(--dead)?\.fifo"):
            client.run(drain=True)


def test_client_that_may_not_create_changes_no_queue(domain: str, ministack: Server, proxy: Proxy) -> None:
    with TaskClient(domain, endpoint_url=ministack.url, **SQS).register_tasks([task]) as owner:
        owner.create_queues()
    seen = Seen()
    one = {"method": seen.take, "name": "task"}
    with piped(domain, SQS, one, endpoint_url=proxy.url, create=False) as guest:
        guest.put(1)
        with guest.start():
            assert seen.wait(1) == [1]
        guest.status()
    assert set(proxy.counts) & {"CreateQueue", "SetQueueAttributes", "TagQueue"} == set()


@pytest.mark.parametrize("create", [True, False])
def test_run_needs_five_rights_and_tells_once_what_it_misses(
    create: bool, domain: str, ministack: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with TaskClient(domain, endpoint_url=ministack.url, **SQS).register_tasks([task]) as owner:
        owner.create_queues()
    only(proxy, *NEEDED)
    seen = Seen()
    one = {"method": seen.take, "name": "task"}
    with piped(domain, SQS, one, endpoint_url=proxy.url, create=create) as client:
        client.put_many(range(3))
        with client.start():
            assert sorted(seen.wait(3)) == [0, 1, 2]
    missed = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(missed) == 2
    assert "sqs:GetQueueAttributes" in missed[0]
    assert "sqs:ListQueueTags" in missed[1]


def test_missing_right_to_create_is_an_error_that_names_queue_and_action(domain: str, proxy: Proxy) -> None:
    only(proxy, *NEEDED)
    with (
        TaskClient(domain, endpoint_url=proxy.url, **SQS).register_tasks([task]) as client,
        pytest.raises(CredentialsError, match=rf"CreateQueue.*{domain}--task"),
    ):
        client.put(1)


def test_queue_with_other_attributes_is_used_with_one_warning(
    domain: str, ministack: Server, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    one = {"method": seen.take, "name": "task"}
    with raw_client(ministack) as sqs, piped(domain, SQS, one, endpoint_url=ministack.url) as client:
        attributes = {"FifoQueue": "true", "MessageRetentionPeriod": "3600"}
        sqs.create_queue(QueueName=f"{domain}--task.fifo", Attributes=attributes)
        client.put(1)
        with client.start():
            assert seen.wait(1) == [1]
        client.status()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    for part in (f"{domain}--task.fifo", "MessageRetentionPeriod", "3600", "RedrivePolicy"):
        assert part in warning


def test_queue_that_gives_up_too_early_is_warned_of(
    domain: str, ministack: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with piped(domain, SQS, task, endpoint_url=ministack.url) as client, raw_client(ministack) as sqs:
        url = client.queues[0]
        policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]
        few = {"RedrivePolicy": json.dumps({**json.loads(policy["RedrivePolicy"]), "maxReceiveCount": 3})}
        sqs.set_queue_attributes(QueueUrl=url, Attributes=few)
    with piped(domain, SQS, task, endpoint_url=ministack.url) as client:
        client.put(1)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "maxReceiveCount" in warning
    assert "3" in warning
