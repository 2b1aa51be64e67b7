"""Wording: the requests that carry and count messages, in SQS's words, and its answers in ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqspipes.brokers.base import OK, Answer, Depth, Entry, Kind, Limits
from sqspipes.brokers.exchange import Ack, Count, Extend, Receive, Reply, Request, Send
from sqspipes.brokers.sqs.addresses import Addresses
from sqspipes.brokers.sqs.errors import entry_answer
from sqspipes.errors import BrokerUnavailableError, QueueMissingError
from sqspipes.messages.ids import derived
from sqspipes.messages.message import Delivery

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
LIMITS = Limits(exact=False, clean_interrupt=False, linger=0.05, requests_in_flight=8, control_interval=60.0)

_COUNTS = "ApproximateNumberOfMessages"
_DELAYED = "ApproximateNumberOfMessagesDelayed"
_IN_FLIGHT = "ApproximateNumberOfMessagesNotVisible"
_ASKED_FOR = ["ApproximateReceiveCount", "MessageGroupId", "SentTimestamp"]

_UNANSWERED = Answer(Kind.AGAIN, "SQS did not answer for this entry")


class Asked(NamedTuple):
    """A request in SQS's words; ``is_repeated``: it asks for what a poll that was cut had taken."""

    action: str
    params: Mapping[str, Any]
    is_repeated: bool = False

    def repeated(self) -> Asked:
        """Return what asks for what this poll had taken: the server gives that again to the same attempt."""
        return self._replace(params={**self.params, "WaitTimeSeconds": 0}, is_repeated=True)


class Wording:
    """Puts requests into SQS's words. ``learn`` asks SQS for what has to be known, nothing else does."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    def knows(self, request: Request) -> bool:
        """Say whether nothing has to be learnt of a request's queue first."""
        if not self._addresses.knows_url(request.queue):
            return False
        if not isinstance(request, Send) or self._addresses.knows_scope(request.queue):
            return True
        return all(entry.id == entry.group for entry in request.entries)

    def learn(self, queue: str) -> None:
        """Ask for what has to be known of a queue."""
        self._addresses.url(queue)
        self._addresses.knows_ids_by_group(queue)

    def asked(self, request: Request) -> Asked:
        """Return a request in SQS's words."""
        url = self._addresses.url(request.queue)
        match request:
            case Send(queue, entries):
                return _batch("SendMessageBatch", url, [self._sent(queue, entry) for entry in entries])
            case Receive(_, count, wait, lease, attempt):
                return Asked(
                    "ReceiveMessage",
                    {
                        "QueueUrl": url,
                        "MaxNumberOfMessages": min(count, LIMITS.entries),
                        "WaitTimeSeconds": round(min(wait, LIMITS.longest_wait)),
                        "VisibilityTimeout": _seconds(lease),
                        "ReceiveRequestAttemptId": attempt,
                        "MessageSystemAttributeNames": _ASKED_FOR,
                    },
                )
            case Ack(_, receipts):
                return _batch("DeleteMessageBatch", url, [{"ReceiptHandle": receipt} for receipt in receipts])
            case Extend(_, leases):
                entries_to_extend = [
                    {"ReceiptHandle": receipt, "VisibilityTimeout": _seconds(seconds)}
                    for receipt, seconds in leases
                ]
                return _batch("ChangeMessageVisibilityBatch", url, entries_to_extend)
            case Count():
                names = [_COUNTS, _DELAYED, _IN_FLIGHT]
                return Asked("GetQueueAttributes", {"QueueUrl": url, "AttributeNames": names})

    @staticmethod
    def reply(request: Request, asked: Asked, result: Mapping[str, Any]) -> Reply:
        """Return an answer of SQS in our words."""
        match request:
            case Receive(queue):
                return [_delivery(queue, message) for message in result.get("Messages", ())]
            case Count():
                counts = result["Attributes"]
                return Depth(int(counts[_COUNTS]) + int(counts[_DELAYED]), int(counts[_IN_FLIGHT]))
            case _:
                return _answers(asked, result)

    def lost(self, error: QueueMissingError) -> QueueMissingError | BrokerUnavailableError:
        """Forget a queue that SQS says is missing, and return the error that it is."""
        return self._addresses.lost(error)

    def _sent(self, queue: str, entry: Entry) -> dict[str, str]:
        return {
            "MessageBody": entry.body,
            "MessageGroupId": entry.group,
            "MessageDeduplicationId": self._deduplication_id(queue, entry),
        }

    def _deduplication_id(self, queue: str, entry: Entry) -> str:
        """Return an id that another group's never equals, also where the queue knows ids of all groups together."""
        if entry.id == entry.group or self._addresses.knows_ids_by_group(queue):
            return entry.id
        return derived("scoped", entry.group, entry.id)


def _batch(action: str, url: str, entries: Sequence[Mapping[str, Any]]) -> Asked:
    numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
    return Asked(action, {"QueueUrl": url, "Entries": numbered})


def _answers(asked: Asked, result: Mapping[str, Any]) -> list[Answer]:
    answers = [_UNANSWERED] * len(asked.params["Entries"])
    for done in result.get("Successful", ()):
        answers[int(done["Id"])] = OK
    for failed in result.get("Failed", ()):
        answers[int(failed["Id"])] = entry_answer(asked.action, failed)
    return answers


def _seconds(lease: float) -> int:
    """Whole seconds: a lease never ends sooner than asked for."""
    return math.ceil(min(lease, LIMITS.longest_lease))


def _delivery(queue: str, message: Mapping[str, Any]) -> Delivery:
    attributes = message["Attributes"]
    return Delivery(
        queue,
        message["MessageId"],
        message["ReceiptHandle"],
        int(attributes["ApproximateReceiveCount"]),
        message["Body"],
        attributes["MessageGroupId"],
        int(attributes["SentTimestamp"]) / 1000,
    )
