"""SqsBroker: AWS SQS FIFO queues, or any server that speaks the same."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqspipes.brokers.base import (
    OK,
    Answer,
    Broker,
    Depth,
    Entry,
    Kind,
    Limits,
    QueueSpec,
)
from sqspipes.brokers.sqs.account import Account
from sqspipes.brokers.sqs.addresses import Addresses
from sqspipes.brokers.sqs.calls import Calls, PollCutError
from sqspipes.brokers.sqs.declare import Declaration
from sqspipes.brokers.sqs.errors import RefusedError, entry_answer
from sqspipes.errors import BrokerUnavailableError, OptionError, QueueMissingError
from sqspipes.messages.ids import derived
from sqspipes.messages.message import Delivery
from sqspipes.support import lines
from sqspipes.support.urls import shown

_logger = lines.logger(__name__)

_COUNTS = "ApproximateNumberOfMessages"
_DELAYED = "ApproximateNumberOfMessagesDelayed"
_IN_FLIGHT = "ApproximateNumberOfMessagesNotVisible"
_ASKED_FOR = ["ApproximateReceiveCount", "MessageGroupId", "SentTimestamp"]


class SqsBroker(Broker):
    """FIFO queues of AWS SQS.

    Credentials are ``aws_key`` and ``aws_secret``, or those of a boto3 ``session``, or what boto3 finds;
    ``endpoint_url``, or ``AWS_ENDPOINT_URL_SQS``, leads to an SQS-compatible server.
    ``transport="boto3"`` has boto3 carry the messages too, for a tenfold of the CPU time.
    """

    #: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    limits = Limits(
        exact=False, clean_interrupt=False, linger=0.05, requests_in_flight=8, control_interval=60.0
    )

    def __init__(
        self,
        url: str = "sqs://",
        *,
        aws_key: str | None = None,
        aws_secret: str | None = None,
        aws_region: str | None = None,
        endpoint_url: str | None = None,
        session: Any = None,
        transport: str = "lean",
    ) -> None:
        if url != "sqs://":
            raise OptionError(
                f"broker is {shown(url)!r}: allowed is sqs://, region and endpoint are options of their own"
            )
        self.url = url
        self._calls = Calls(Account(aws_key, aws_secret, aws_region, endpoint_url, session, transport))
        self._addresses = Addresses(self._calls)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"SqsBroker({self.url!r})"

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        lines = Declaration(self._calls, self._addresses, create=create).run(specs)
        new = [line for line in lines if line not in self._told]
        self._told.update(new)
        if new:
            _logger.warning(
                "existing queues have other settings, and are used as they are. %s",
                ". ".join(new),
            )

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        params = [
            {
                "MessageBody": entry.body,
                "MessageGroupId": entry.group,
                "MessageDeduplicationId": self._deduplication_id(queue, entry),
            }
            for entry in entries
        ]
        try:
            return self._batch("SendMessageBatch", queue, params)
        except RefusedError as error:
            if error.code != "BatchRequestTooLong":
                raise
            if len(entries) == 1:
                return [Answer(Kind.NEVER, str(error))]
        return self._send_in_halves(queue, entries)

    def _send_in_halves(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Send what is too long for one request in two; what is behind an entry of its group waits for that one."""
        half = len(entries) // 2
        answers = self.send(queue, entries[:half])
        held_up = {
            entry.group for entry, answer in zip(entries, answers, strict=False) if answer.kind is Kind.AGAIN
        }
        rest = [entry for entry in entries[half:] if entry.group not in held_up]
        sent = iter(self.send(queue, rest) if rest else ())
        behind = Answer(Kind.AGAIN, "the message before it in its group was not taken")
        return answers + [behind if entry.group in held_up else next(sent) for entry in entries[half:]]

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        return self._batch(
            "DeleteMessageBatch",
            queue,
            [{"ReceiptHandle": receipt} for receipt in receipts],
        )

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        params = [
            {"ReceiptHandle": receipt, "VisibilityTimeout": _seconds(seconds)} for receipt, seconds in leases
        ]
        return self._batch("ChangeMessageVisibilityBatch", queue, params)

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        params = {
            "MaxNumberOfMessages": min(count, self.limits.entries),
            "WaitTimeSeconds": round(min(wait, self.limits.longest_wait)),
            "VisibilityTimeout": _seconds(lease),
            "ReceiveRequestAttemptId": attempt,
            "MessageSystemAttributeNames": _ASKED_FOR,
        }
        try:
            answer = self._poll(queue, params)
        except PollCutError:
            answer = self._repeated(queue, {**params, "WaitTimeSeconds": 0})
        return [_delivery(queue, message) for message in answer.get("Messages", ())]

    def depth(self, queue: str) -> Depth:
        answer = self._call(
            "GetQueueAttributes",
            queue,
            {"AttributeNames": [_COUNTS, _DELAYED, _IN_FLIGHT]},
        )
        counts = {name: int(answer["Attributes"][name]) for name in (_COUNTS, _DELAYED, _IN_FLIGHT)}
        return Depth(counts[_COUNTS] + counts[_DELAYED], counts[_IN_FLIGHT])

    def message_bytes(self, queue: str) -> int:
        return self._addresses.message_bytes(queue, self.limits.message_bytes)

    def names(self, prefix: str) -> list[str]:
        names: list[str] = []
        # Without MaxResults SQS ends after 1,000 queues and does not say so.
        params: dict[str, Any] = {"MaxResults": 1_000, "QueueNamePrefix": prefix}
        tokens: set[str] = set()
        while True:
            answer = self._calls.call("ListQueues", params)
            for url in answer.get("QueueUrls", ()):
                names.append(url.rpartition("/")[2])
                self._addresses.seen(names[-1], url)
            token = answer.get("NextToken", "")
            if not token:
                return [name for name in names if name.startswith(prefix)]
            if token in tokens:
                raise BrokerUnavailableError("ListQueues: the answer is not SQS's: NextToken leads back")
            tokens.add(token)
            params["NextToken"] = token

    def queue_url(self, queue: str) -> str:
        return self._addresses.url(queue)

    def tags(self, queue: str) -> dict[str, str]:
        return dict(self._call("ListQueueTags", queue, {}).get("Tags", {}))

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        given = {name: value for name, value in tags.items() if value is not None}
        removed = [name for name in tags if name not in given]
        if given:
            self._call("TagQueue", queue, {"Tags": given})
        if removed:
            self._call("UntagQueue", queue, {"TagKeys": removed})

    def purge(self, queue: str) -> None:
        self._call("PurgeQueue", queue, {})

    def delete(self, queue: str) -> None:
        try:
            self._calls.call("DeleteQueue", {"QueueUrl": self._addresses.url(queue)}, queue=queue)
        except QueueMissingError:
            _logger.debug("queue %s was not there to be deleted", queue)
        self._addresses.forget(queue)

    def interrupt(self) -> None:
        self._calls.interrupt()

    def close(self) -> None:
        self._calls.close()

    def _call(self, action: str, queue: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call with a queue's URL; a queue that is missing is asked for again next time."""
        url = self._addresses.url(queue)
        try:
            return self._calls.call(action, {"QueueUrl": url, **params}, queue=queue)
        except QueueMissingError as error:
            raise self._addresses.lost(error) from error

    def _deduplication_id(self, queue: str, entry: Entry) -> str:
        """Return an id that another group's never equals, also where the queue knows ids of all groups together."""
        if entry.id == entry.group or self._addresses.knows_ids_by_group(queue):
            return entry.id
        return derived("scoped", entry.group, entry.id)

    def _poll(self, queue: str, params: dict[str, Any]) -> dict[str, Any]:
        url = self._addresses.url(queue)
        try:
            return self._calls.poll({"QueueUrl": url, **params}, queue=queue)
        except QueueMissingError as error:
            raise self._addresses.lost(error) from error
        except RefusedError as error:
            if error.code.removesuffix("Exception") != "InvalidParameterValue":
                raise
        # SQS refuses an attempt id when it cannot replay the answer, for one after a throttled receive. What
        # that one took comes back when its lease ends. A cut poll is repeated with the id that it had.
        params["ReceiveRequestAttemptId"] = uuid.uuid4().hex
        return self._calls.poll({"QueueUrl": url, **params}, queue=queue)

    def _repeated(self, queue: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the server gave to a poll that was cut: it gives that again to the same attempt.

        An attempt that SQS does not take again brought nothing. SQS may refuse one that took no message, one after
        five minutes, or one whose messages were changed meanwhile. A poll with the same parameters went out a moment
        ago, so a refusal is about the attempt.
        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-receiverequestattemptid-request-parameter.html
        """
        try:
            return self._call("ReceiveMessage", queue, params)
        except RefusedError as error:
            _logger.debug("the poll of %s that was cut brought nothing: %s", queue, error)
            return {}

    def _batch(self, action: str, queue: str, entries: Sequence[dict[str, Any]]) -> list[Answer]:
        """Call with entries that are numbered, and return the answer to each."""
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        result = self._call(action, queue, {"Entries": numbered})
        answers = [Answer(Kind.AGAIN, "SQS did not answer for this entry")] * len(entries)
        for done in result.get("Successful", ()):
            answers[int(done["Id"])] = OK
        for failed in result.get("Failed", ()):
            answers[int(failed["Id"])] = entry_answer(action, failed)
        return answers


def _seconds(lease: float) -> int:
    """Whole seconds: a lease never ends sooner than asked for."""
    return math.ceil(min(lease, SqsBroker.limits.longest_lease))


def _delivery(queue: str, message: Mapping[str, Any]) -> Delivery:
    attributes = message["Attributes"]
    return Delivery(
        queue=queue,
        id=message["MessageId"],
        receipt=message["ReceiptHandle"],
        receives=int(attributes["ApproximateReceiveCount"]),
        body=message["Body"],
        group=attributes["MessageGroupId"],
        sent=int(attributes["SentTimestamp"]) / 1000,
    )
