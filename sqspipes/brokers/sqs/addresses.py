"""Addresses: what is known of queues, asked for once: URL, ARN and largest message."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqspipes.brokers.sqs.calls import Calls
from sqspipes.errors import BrokerUnavailableError, CredentialsError, QueueMissingError
from sqspipes.support import clocks, lines

_logger = lines.logger(__name__)

#: Seconds after its creation in which a queue that is not found is not missing, but not there yet.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
_FRESH = 60.0

#: The attribute that says where a queue knows deduplication ids, and its value where each group has its own.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
_SCOPE, _BY_GROUP = "DeduplicationScope", "messageGroup"

# What a send needs to know, asked for together.
_FOR_SENDING = ("MaximumMessageSize", _SCOPE)


class Addresses:
    """What is known of queues; no lock is needed, the same question asked twice has the same answer."""

    def __init__(self, calls: Calls, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._calls = calls
        self._clock = clock
        self._urls: dict[str, str] = {}
        self._arns: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._scopes: dict[str, bool] = {}
        self._made: dict[str, float] = {}
        self._missed: set[str] = set()

    def url(self, queue: str) -> str:
        """Return a queue's URL."""
        url = self._urls.get(queue)
        if url is None:
            answer = self._calls.call("GetQueueUrl", {"QueueName": queue}, queue=queue)
            url = self._urls[queue] = str(answer["QueueUrl"])
        return url

    def knows_url(self, queue: str) -> bool:
        """Say whether a queue's URL is known."""
        return queue in self._urls

    def knows_scope(self, queue: str) -> bool:
        """Say whether it is known where a queue knows ids."""
        return queue in self._scopes

    def arn(self, queue: str) -> str:
        """Return a queue's ARN."""
        if queue not in self._arns and self.attributes(queue, ("QueueArn",)) is None:
            self._arns[queue] = self._calls.arn(queue, self.url(queue))
        return self._arns[queue]

    def message_bytes(self, queue: str, default: int) -> int:
        """Return a queue's largest message; ``default`` where it may not be asked for."""
        if queue not in self._sizes and self.attributes(queue, _FOR_SENDING) is None:
            self._scopes.setdefault(queue, False)
        return self._sizes.setdefault(queue, default)

    def knows_ids_by_group(self, queue: str) -> bool:
        """Say whether a queue knows a deduplication id in its own group only; not where that may not be asked for.

        A queue that was made to do so is asked as well: other servers than SQS may not heed it.
        """
        if queue not in self._scopes:
            self.attributes(queue, _FOR_SENDING)
        return self._scopes.setdefault(queue, False)

    def attributes(self, queue: str, names: Sequence[str]) -> dict[str, str] | None:
        """Return attributes of a queue; None when there is no right to read them."""
        params = {
            "QueueUrl": self.url(queue),
            "AttributeNames": list(dict.fromkeys(names)),
        }
        try:
            found: dict[str, str] = self._calls.call("GetQueueAttributes", params, queue=queue)["Attributes"]
        except CredentialsError as error:
            self.missed(
                "sqs:GetQueueAttributes",
                f"the settings of queues are taken for right ({error})",
            )
            return None
        except QueueMissingError as error:
            raise self.lost(error) from error
        if "QueueArn" in found:
            self._arns[queue] = found["QueueArn"]
        if "MaximumMessageSize" in found:
            self._sizes[queue] = int(found["MaximumMessageSize"])
        if _SCOPE in names:
            self._scopes[queue] = found.get(_SCOPE) == _BY_GROUP
        return found

    def made(self, queue: str, url: str, message_bytes: int) -> None:
        """Remember a queue that was created now."""
        self._urls[queue] = url
        self._sizes[queue] = message_bytes
        self._made[queue] = self._clock()

    def lost(self, error: QueueMissingError) -> QueueMissingError | BrokerUnavailableError:
        """Forget a queue that SQS says is missing, and return the error that it is."""
        if self._clock() - self._made.get(error.queue, float("-inf")) < _FRESH:
            return BrokerUnavailableError(f"queue {error.queue} was made just now and is not there yet")
        self.forget(error.queue)
        return error

    def seen(self, queue: str, url: str) -> None:
        """Remember the address of a queue that was listed."""
        self._urls.setdefault(queue, url)

    def forget(self, queue: str) -> None:
        """Forget a queue."""
        self._urls.pop(queue, None)
        self._arns.pop(queue, None)
        self._sizes.pop(queue, None)
        self._scopes.pop(queue, None)
        self._made.pop(queue, None)

    def missed(self, right: str, consequence: str) -> None:
        """Log once that a right is missing that is not needed."""
        if right not in self._missed:
            self._missed.add(right)
            _logger.warning("no right to %s: %s", right, consequence)
