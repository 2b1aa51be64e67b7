"""SqsBroker: AWS SQS FIFO queues, or any server that speaks the same."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqspipes.brokers.base import (
    Answer,
    Broker,
    Depth,
    Entry,
    Kind,
    QueueSpec,
)
from sqspipes.brokers.exchange import (
    Ack,
    Count,
    Exchange,
    ExchangeLoop,
    Extend,
    Receive,
    Reply,
    Request,
    Send,
)
from sqspipes.brokers.sqs.account import Account
from sqspipes.brokers.sqs.addresses import Addresses
from sqspipes.brokers.sqs.calls import Calls, PollCutError
from sqspipes.brokers.sqs.declare import Declaration
from sqspipes.brokers.sqs.errors import RefusedError
from sqspipes.brokers.sqs.exchange import SqsExchange
from sqspipes.brokers.sqs.wording import LIMITS, Wording
from sqspipes.errors import BrokerUnavailableError, OptionError, QueueMissingError
from sqspipes.messages.message import Delivery
from sqspipes.support import lines
from sqspipes.support.urls import shown

_logger = lines.logger(__name__)


class SqsBroker(Broker):
    """FIFO queues of AWS SQS.

    Credentials are ``aws_key`` and ``aws_secret``, or those of a boto3 ``session``, or what boto3 finds;
    ``endpoint_url``, or ``AWS_ENDPOINT_URL_SQS``, leads to an SQS-compatible server.
    ``transport="boto3"`` has boto3 carry the messages too, for a tenfold of the CPU time.
    """

    limits = LIMITS

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
        self._wording = Wording(self._addresses)
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

    def exchange(self, loop: ExchangeLoop, name: str) -> Exchange | None:
        """Return an exchange over sockets that the loop watches; None where boto3 carries the messages."""
        calls = self._calls.lean_calls() if type(self) is SqsBroker else None
        return None if calls is None else SqsExchange(self, calls, self._wording, loop, name)

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        try:
            return self._answers(Send(queue, entries))
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
        return self._answers(Ack(queue, receipts))

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        return self._answers(Extend(queue, leases))

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        request = Receive(queue, count, wait, lease, attempt)
        asked = self._wording.asked(request)
        params = dict(asked.params)
        try:
            answer = self._poll(queue, params)
        except PollCutError:
            answer = self._repeated(queue, asked._replace(params=params).repeated().params)
        deliveries: list[Delivery] = list(self._wording.reply(request, asked, answer))  # type: ignore[arg-type]
        return deliveries

    def depth(self, queue: str) -> Depth:
        depth = self._reply(Count(queue))
        assert isinstance(depth, Depth)
        return depth

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

    def _poll(self, queue: str, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._calls.poll(params, queue=queue)
        except QueueMissingError as error:
            raise self._addresses.lost(error) from error
        except RefusedError as error:
            if error.code.removesuffix("Exception") != "InvalidParameterValue":
                raise
        # SQS refuses an attempt id when it cannot replay the answer, for one after a throttled receive. What
        # that one took comes back when its lease ends. A cut poll is repeated with the id that it had.
        params["ReceiveRequestAttemptId"] = uuid.uuid4().hex
        return self._calls.poll(params, queue=queue)

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

    def _answers(self, request: Request) -> list[Answer]:
        answers: list[Answer] = list(self._reply(request))  # type: ignore[arg-type]
        return answers

    def _reply(self, request: Request) -> Reply:
        asked = self._wording.asked(request)
        return self._wording.reply(request, asked, self._call(asked.action, request.queue, asked.params))
