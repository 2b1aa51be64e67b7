"""What only SQS does: the requests that calls become, and polls. What all brokers do is in contract."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest

from sqspipes.brokers.base import Broker, Entry, Kind
from sqspipes.errors import (
    BrokerClosedError,
    BrokerUnavailableError,
)
from sqspipes.testing.broker_contract.steps import PATIENCE, bodies, in_thread, made, put, take
from tests.conftest import TRANSPORTS, MakeBroker
from tests.servers import (
    Behaviour,
    Forward,
    Proxy,
    Reply,
    Request,
    changed_request,
    error,
    json_reply,
    lost_answer,
)


@pytest.fixture(params=TRANSPORTS)
def broker(request: pytest.FixtureRequest, make_broker: MakeBroker, proxy: Proxy) -> Broker:
    """A broker behind the proxy, by either transport."""
    return make_broker(request.param, endpoint_url=proxy.url)


def test_receive_says_all_that_it_wants(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    broker.receive(queue, count=7, wait=0.6, lease=4.2, attempt="my-attempt")
    (request,) = proxy.requests("ReceiveMessage")
    asked = request.json
    assert (asked["MaxNumberOfMessages"], asked["WaitTimeSeconds"], asked["VisibilityTimeout"]) == (7, 1, 5)
    assert asked["ReceiveRequestAttemptId"] == "my-attempt"
    attributes = {"ApproximateReceiveCount", "MessageGroupId", "SentTimestamp"}
    assert attributes <= set(asked["MessageSystemAttributeNames"])


def test_batch_is_one_request(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    # What a send has to know of its queue is asked once.
    put(broker, queue, "first")
    proxy.forget()
    put(broker, queue, *"abcdefghij")
    deliveries = take(broker, queue)
    broker.extend(queue, [(delivery.receipt, 30) for delivery in deliveries])
    broker.ack(queue, [delivery.receipt for delivery in deliveries])
    actions = ("SendMessageBatch", "ReceiveMessage", "ChangeMessageVisibilityBatch", "DeleteMessageBatch")
    assert proxy.counts == dict.fromkeys(actions, 1)


def test_failed_request_is_not_repeated_in_secret(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.always("SendMessageBatch", error(503, "ServiceUnavailable"))
    with pytest.raises(BrokerUnavailableError):
        put(broker, queue, "a")
    assert proxy.counts["SendMessageBatch"] == 1


def test_requests_share_a_connection(broker: Broker, domain: str, proxy: Proxy) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "first")
    before = proxy.connections_made
    for i in range(5):
        put(broker, queue, f"m{i}")
    assert proxy.connections_made == before


def test_idle_connection_that_was_cut_is_replaced(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    assert len(take(broker, queue)) == 1
    proxy.cut()
    put(broker, queue, "b")
    assert bodies(take(broker, queue)) == ["b"]


def test_names_turns_every_page(broker: Broker, proxy: Proxy, domain: str) -> None:
    queues = made(broker, domain, *"abcde")
    proxy.always("ListQueues", changed_request(lambda asked: {**asked, "MaxResults": 2}))
    assert sorted(broker.names(domain)) == queues
    assert proxy.counts["ListQueues"] == 3


def test_importing_sqspipes_imports_no_boto3() -> None:
    code = "import sqspipes.brokers, sys; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cut_poll_asks_for_what_the_server_gave_it(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    arrived = threading.Event()

    def signal(request: Any, forward: Any) -> Any:
        arrived.set()
        return forward(request)

    proxy.plan("ReceiveMessage", signal)
    poll = in_thread(lambda: broker.receive(queue, count=5, wait=20, lease=30, attempt="my-attempt"))
    assert arrived.wait(PATIENCE)
    broker.interrupt()
    assert poll.result(PATIENCE) == []
    first, second = [request.json for request in proxy.requests("ReceiveMessage")]
    assert second == {**first, "WaitTimeSeconds": 0}


NOT_RETRYABLE = (
    "Value a for parameter ReceiveRequestAttemptId is invalid. Reason: The receiveRequestAttemptId is not valid "
    "anymore since the receive call is not retryable."
)


@pytest.mark.parametrize(
    "code",
    ["InvalidParameterValue", "InvalidParameterValueException", "AWS.SimpleQueueService.InvalidAttempt"],
)
def test_cut_poll_whose_attempt_is_refused_brought_nothing(
    broker: Broker, proxy: Proxy, domain: str, code: str
) -> None:
    (queue,) = made(broker, domain)
    arrived = threading.Event()

    def signal(request: Any, forward: Any) -> Any:
        arrived.set()
        return forward(request)

    proxy.plan("ReceiveMessage", signal, error(400, code, NOT_RETRYABLE))
    poll = in_thread(lambda: take(broker, queue, wait=20))
    assert arrived.wait(PATIENCE)
    broker.interrupt()
    assert poll.result(PATIENCE) == []


def test_cut_poll_during_an_outage_is_an_outage(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    arrived = threading.Event()

    def signal(request: Any, forward: Any) -> Any:
        arrived.set()
        return forward(request)

    proxy.plan("ReceiveMessage", signal, error(503, "ServiceUnavailable"))
    poll = in_thread(lambda: take(broker, queue, wait=20))
    assert arrived.wait(PATIENCE)
    broker.interrupt()
    with pytest.raises(BrokerUnavailableError):
        poll.result(PATIENCE)


def test_cut_poll_asks_with_the_attempt_that_replaced_a_refused_one(
    broker: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(broker, domain)
    arrived = threading.Event()

    def signal(request: Any, forward: Any) -> Any:
        arrived.set()
        return forward(request)

    proxy.plan("ReceiveMessage", error(400, "InvalidParameterValue", NOT_RETRYABLE), signal)
    poll = in_thread(lambda: take(broker, queue, wait=20))
    assert arrived.wait(PATIENCE)
    broker.interrupt()
    assert poll.result(PATIENCE) == []
    asked = [request.json["ReceiveRequestAttemptId"] for request in proxy.requests("ReceiveMessage")]
    assert asked[0] != asked[1] == asked[2]


TOO_LONG = pytest.mark.parametrize(
    "code",
    [
        "BatchRequestTooLong",
        "AWS.SimpleQueueService.BatchRequestTooLong",
    ],
)


def too_long(code: str, most: int) -> Behaviour:
    """Refuse requests whose bodies have more than so many characters together."""

    def behave(request: Request, forward: Forward) -> Reply | None:
        size = sum(len(entry["MessageBody"]) for entry in request.json["Entries"])
        return error(400, code)(request, forward) if size > most else forward(request)

    return behave


@TOO_LONG
def test_send_that_is_too_long_for_one_request_goes_in_several(
    code: str, broker: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(broker, domain)
    proxy.always("SendMessageBatch", too_long(code, 3))
    entries = [Entry(letter, "one", letter) for letter in "abcdefghij"]
    assert [answer.kind for answer in broker.send(queue, entries)] == [Kind.OK] * 10
    assert bodies(take(broker, queue)) == list("abcdefghij")


@TOO_LONG
def test_single_message_that_is_too_long_for_a_request_is_refused_and_the_others_are_sent(
    code: str, broker: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(broker, domain)
    proxy.always("SendMessageBatch", too_long(code, 5))
    entries = [Entry(body, body[:1], body[:1]) for body in ("a", "bbbbbb", "c", "dd", "e")]
    kinds = [answer.kind for answer in broker.send(queue, entries)]
    assert kinds == [Kind.OK, Kind.NEVER, Kind.OK, Kind.OK, Kind.OK]
    assert sorted(bodies(take(broker, queue))) == ["a", "c", "dd", "e"]


def test_second_half_of_a_send_does_not_overtake_what_was_not_taken_of_its_group(
    broker: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(broker, domain)

    def busy(request: Request, forward: Forward) -> Reply | None:
        failed = [
            {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False, "Message": "not now"}
            for entry in request.json["Entries"]
            if entry["MessageBody"] == "a"
        ]
        assert failed
        return json_reply({"Successful": [], "Failed": failed})

    proxy.plan("SendMessageBatch", error(400, "BatchRequestTooLong"), busy)
    entries = [Entry(body, group, body) for body, group in (("a", "one"), ("b", "one"), ("c", "two"))]
    kinds = [answer.kind for answer in broker.send(queue, entries)]
    assert kinds == [Kind.AGAIN, Kind.AGAIN, Kind.OK]
    assert bodies(take(broker, queue)) == ["c"]


def test_attempt_that_cannot_be_replayed_is_replaced(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    proxy.plan("ReceiveMessage", error(400, "InvalidParameterValue", "the receive call is not retryable"))
    assert bodies(take(broker, queue)) == ["a"]
    first, second = [request.json["ReceiveRequestAttemptId"] for request in proxy.requests("ReceiveMessage")]
    assert first != second


def test_cut_connection_is_an_outage_and_no_interrupt(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("ReceiveMessage", lost_answer)
    with pytest.raises(BrokerUnavailableError):
        take(broker, queue)
    assert proxy.counts["ReceiveMessage"] == 1


def test_close_ends_open_polls(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    arrived = threading.Event()

    def signal(request: Any, forward: Any) -> Any:
        arrived.set()
        return forward(request)

    proxy.plan("ReceiveMessage", signal)
    poll = in_thread(lambda: take(broker, queue, wait=20))
    assert arrived.wait(PATIENCE)
    broker.close()
    with pytest.raises(BrokerClosedError):
        poll.result(PATIENCE)
