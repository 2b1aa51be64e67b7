"""What SQS refuses, for whole requests and single entries, is told by class and code."""

from __future__ import annotations

from typing import Any

import pytest

from sqspipes.brokers.base import OK, Answer, Broker, Entry, Kind
from sqspipes.errors import (
    BrokerError,
    BrokerUnavailableError,
    CredentialsError,
    QueueMissingError,
)
from sqspipes.testing.broker_contract.steps import bodies, kinds, made, put, take, take_one
from tests.conftest import TRANSPORTS, MakeBroker
from tests.servers import (
    Proxy,
    changed,
    error,
    lost_answer,
    lost_request,
)


@pytest.fixture(params=TRANSPORTS)
def broker(request: pytest.FixtureRequest, make_broker: MakeBroker, proxy: Proxy) -> Broker:
    """A broker behind the proxy, by either transport."""
    return make_broker(request.param, endpoint_url=proxy.url)


def test_lost_answer_to_a_send_may_be_sent_again(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    for lost in (lost_answer, lost_request):
        proxy.always("SendMessageBatch", lost)
        with pytest.raises(BrokerUnavailableError, match=queue):
            put(broker, queue, "a", "b", group="g")
    proxy.clear()
    put(broker, queue, "a", "b", group="g")
    assert bodies(take(broker, queue)) == ["a", "b"]


def test_server_that_is_not_there_is_unavailable(make_broker: MakeBroker) -> None:
    broker = make_broker("sqs", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(BrokerUnavailableError):
        broker.names("x")


def test_answer_that_is_not_sqs_is_unavailable(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("SendMessageBatch", error(502, ""), error(404, ""))
    with pytest.raises(BrokerUnavailableError):
        put(broker, queue, "a")
    with pytest.raises(BrokerError):
        put(broker, queue, "a")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "RequestThrottled", BrokerUnavailableError),
        (400, "ThrottlingException", BrokerUnavailableError),
        (403, "RequestThrottled", BrokerUnavailableError),
        (400, "OverLimit", BrokerUnavailableError),
        (400, "KmsThrottled", BrokerUnavailableError),
        (403, "RequestTimeTooSkewed", BrokerUnavailableError),
        (429, "Anything", BrokerUnavailableError),
        (500, "InternalError", BrokerUnavailableError),
        (503, "Anything", BrokerUnavailableError),
        (400, "AWS.SimpleQueueService.NonExistentQueue", QueueMissingError),
        (400, "QueueDoesNotExist", QueueMissingError),
        (403, "AccessDenied", CredentialsError),
        (400, "AccessDeniedException", CredentialsError),
        (403, "InvalidClientTokenId", CredentialsError),
        (403, "SignatureDoesNotMatch", CredentialsError),
        (400, "UnrecognizedClientException", CredentialsError),
        (403, "ExpiredToken", CredentialsError),
        (403, "MissingAuthenticationToken", CredentialsError),
        (403, "Anything", CredentialsError),
        (400, "InvalidAddress", BrokerError),
    ],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_refused_request_is_told_by_its_code(
    make_broker: MakeBroker,
    proxy: Proxy,
    domain: str,
    transport: str,
    status: int,
    code: str,
    kind: type[BrokerError],
) -> None:
    (queue,) = made(make_broker("sqs"), domain)
    broker = make_broker(transport, endpoint_url=proxy.url)
    proxy.always("SendMessageBatch", error(status, code))
    with pytest.raises(kind, match=queue) as caught:
        put(broker, queue, "a")
    assert isinstance(caught.value, BrokerUnavailableError) == (kind is BrokerUnavailableError)


SEND, RECEIVE = "SendMessageBatch", "ReceiveMessage"
DENIED = "User: x is not authorized to perform: {} on resource: arn:aws:kms:eu-west-1:1:key/k because x"


@pytest.mark.parametrize(
    ("action", "code", "text", "right"),
    [
        (SEND, "KMS.AccessDeniedException", "no", "kms:GenerateDataKey and kms:Decrypt"),
        (SEND, "KmsAccessDenied", "no", "kms:GenerateDataKey and kms:Decrypt"),
        (SEND, "AccessDenied", DENIED.format("kms:GenerateDataKey"), "kms:GenerateDataKey"),
        (SEND, "KmsAccessDenied", DENIED.format("kms:Decrypt"), "kms:Decrypt"),
        (RECEIVE, "KMS.AccessDeniedException", "no", "kms:Decrypt"),
        (RECEIVE, "AccessDeniedException", DENIED.format("kms:Decrypt"), "kms:Decrypt"),
    ],
)
def test_right_to_the_key_of_an_encrypted_queue_is_named(
    broker: Broker, proxy: Proxy, domain: str, action: str, code: str, text: str, right: str
) -> None:
    (queue,) = made(broker, domain)
    proxy.always(action, error(400, code, text))
    with pytest.raises(
        CredentialsError, match=f"no right to {right} with the key that encrypts {queue}"
    ) as caught:
        put(broker, queue, "a") if action == SEND else take(broker, queue)
    assert "sqs:" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("KMS.ThrottlingException", BrokerUnavailableError),
        ("KMS.InternalException", BrokerUnavailableError),
        ("KmsThrottled", BrokerUnavailableError),
        ("KMS.DisabledException", BrokerError),
        ("KmsNotFound", BrokerError),
    ],
)
def test_key_that_cannot_be_used_is_told_by_its_code(
    broker: Broker, proxy: Proxy, domain: str, code: str, kind: type[BrokerError]
) -> None:
    (queue,) = made(broker, domain)
    proxy.always(SEND, error(400, code))
    with pytest.raises(kind) as caught:
        put(broker, queue, "a")
    assert isinstance(caught.value, BrokerUnavailableError) == (kind is BrokerUnavailableError)
    assert ("the KMS key of the queue cannot be used" in str(caught.value)) == (kind is BrokerError)


def test_signature_of_another_time_is_a_matter_of_the_clock(
    broker: Broker, proxy: Proxy, domain: str
) -> None:
    (queue,) = made(broker, domain)
    said = "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z"
    proxy.plan("SendMessageBatch", error(403, "SignatureDoesNotMatch", said))
    with pytest.raises(BrokerUnavailableError):
        put(broker, queue, "a")


@pytest.mark.parametrize(
    ("code", "text", "fault", "kind"),
    [
        ("InvalidMessageContents", "The body has characters", True, Kind.NEVER),
        ("InvalidParameterValue", "Message must be shorter than 1024 bytes", True, Kind.NEVER),
        ("InternalError", "We encountered an internal error", False, Kind.AGAIN),
        ("ServiceUnavailable", "", True, Kind.AGAIN),
        ("RequestThrottled", "", True, Kind.AGAIN),
        ("KmsThrottled", "", True, Kind.AGAIN),
        ("KMS.ThrottlingException", "", True, Kind.AGAIN),
        ("KMS.DisabledException", "", True, Kind.AGAIN),
        ("KMS.AccessDeniedException", "kms:GenerateDataKey", True, Kind.AGAIN),
        ("AccessDenied", "", True, Kind.AGAIN),
    ],
)
def test_entry_that_failed_is_told_by_its_code(
    broker: Broker, proxy: Proxy, domain: str, code: str, text: str, fault: bool, kind: Kind
) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("SendMessageBatch", _failing(1, code, text, fault))
    answers = broker.send(queue, [Entry(name, name, name) for name in "abc"])
    assert kinds(answers) == [Kind.OK, kind, Kind.OK]
    assert text in answers[1].reason


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("ReceiptHandleIsInvalid", "The receipt handle has expired", Kind.GONE),
        (
            "InvalidParameterValue",
            "Value x for parameter ReceiptHandle is invalid. Reason: expired",
            Kind.GONE,
        ),
        ("AWS.SimpleQueueService.MessageNotInflight", "", Kind.GONE),
        ("MessageNotInflight", "", Kind.GONE),
        ("InternalError", "", Kind.AGAIN),
    ],
)
def test_receipt_that_failed_is_told_by_its_code(
    broker: Broker, proxy: Proxy, domain: str, code: str, text: str, kind: Kind
) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"ab")
    receipts = [delivery.receipt for delivery in take(broker, queue)]
    proxy.plan("ChangeMessageVisibilityBatch", _failing(0, code, text, code != "InternalError"))
    proxy.plan("DeleteMessageBatch", _failing(0, code, text, code != "InternalError"))
    assert kinds(broker.extend(queue, [(receipt, 9.0) for receipt in receipts])) == [kind, Kind.OK]
    assert kinds(broker.ack(queue, receipts)) == [kind, Kind.OK]


def test_lease_beyond_twelve_hours_is_refused_and_not_lost(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue)
    text = "Value 43200 for parameter VisibilityTimeout is invalid. Reason: beyond the limit [43200 seconds]."
    proxy.plan("ChangeMessageVisibilityBatch", _failing(0, "InvalidParameterValue", text, True))
    assert kinds(broker.extend(queue, [(delivery.receipt, 43_200)])) == [Kind.NEVER]


def test_entry_without_an_answer_is_sent_again(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)
    proxy.plan("SendMessageBatch", changed(lambda result: {"Successful": result["Successful"][1:]}))
    answers = broker.send(queue, [Entry(name, name, name) for name in "abc"])
    assert kinds(answers) == [Kind.AGAIN, Kind.OK, Kind.OK]


def test_answers_stand_in_the_order_of_the_entries(broker: Broker, proxy: Proxy, domain: str) -> None:
    (queue,) = made(broker, domain)

    def reverse(result: dict[str, Any]) -> dict[str, Any]:
        failed = {"Id": "3", "Code": "InvalidMessageContents", "Message": "bad", "SenderFault": True}
        return {"Successful": result["Successful"][2::-1], "Failed": [failed]}

    proxy.plan("SendMessageBatch", changed(reverse))
    answers = broker.send(queue, [Entry(name, name, name) for name in "abcd"])
    assert answers == [OK, OK, OK, Answer(Kind.NEVER, "InvalidMessageContents: bad")]


def _failing(place: int, code: str, text: str, fault: bool) -> Any:
    """One entry of a batch fails, the others are done."""

    def change(result: dict[str, Any]) -> dict[str, Any]:
        failed = {"Id": str(place), "Code": code, "Message": text, "SenderFault": fault}
        return {"Successful": [e for e in result["Successful"] if e["Id"] != str(place)], "Failed": [failed]}

    return changed(change)
