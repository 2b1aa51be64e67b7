"""Declare: find queues, make the ones that are missing, and tell how existing ones differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqspipes.brokers.base import QueueSpec
from sqspipes.brokers.sqs import queues
from sqspipes.brokers.sqs.addresses import Addresses
from sqspipes.brokers.sqs.calls import Calls
from sqspipes.brokers.sqs.errors import RefusedError
from sqspipes.defaults import MESSAGE_BYTES
from sqspipes.errors import CredentialsError, QueueMissingError
from sqspipes.support.workers import Workers

#: Requests under way at once while queues are declared.
_TOGETHER = 8


class Declaration:
    """One ``declare``: the way from specs to queues that are there."""

    def __init__(self, calls: Calls, addresses: Addresses, *, create: bool) -> None:
        self._calls = calls
        self._addresses = addresses
        self._create = create

    def run(self, specs: Sequence[QueueSpec]) -> list[str]:
        """Make or find the queues, dead-letter queues first; return what differs, a line a queue."""
        if not self._create:
            _each(lambda spec: self._addresses.url(spec.name), specs)
        # A RedrivePolicy may name only a queue that is there.
        dead = [spec for spec in specs if spec.dead_letters is None]
        others = [spec for spec in specs if spec.dead_letters is not None]
        return [line for line in _each(self._declare, dead) + _each(self._declare, others) if line]

    def _declare(self, spec: QueueSpec) -> str:
        try:
            self._addresses.url(spec.name)
        except QueueMissingError:
            if not self._create:
                raise
            if self._make(spec):
                return ""
        return self._compared(spec)

    def _make(self, spec: QueueSpec) -> bool:
        """Create a queue; False when somebody else was faster, with other attributes."""
        try:
            url = self._create_queue(spec)
        except RefusedError as error:
            if error.code not in ("QueueAlreadyExists", "QueueNameExists"):
                raise
            return False
        self._addresses.made(spec.name, url, int(spec.attributes.get("MaximumMessageSize", MESSAGE_BYTES)))
        return True

    def _create_queue(self, spec: QueueSpec) -> str:
        params = {"QueueName": spec.name, "Attributes": self._wanted(spec)}
        if not spec.tags:
            return str(self._calls.call("CreateQueue", params, queue=spec.name)["QueueUrl"])
        try:
            tagged = {**params, "tags": dict(spec.tags)}
            return str(self._calls.call("CreateQueue", tagged, queue=spec.name)["QueueUrl"])
        except CredentialsError:
            # Tags need a right of their own, and the error does not say which one was missed.
            url = str(self._calls.call("CreateQueue", params, queue=spec.name)["QueueUrl"])
            self._addresses.missed("sqs:TagQueue", "queues are made without tags")
            return url

    def _compared(self, spec: QueueSpec) -> str:
        there = self._addresses.attributes(spec.name, (*queues.READ, *spec.attributes))
        if there is None:
            return ""
        differences = "; ".join(queues.differences(there, self._wanted(spec)))
        return f"{spec.name}: {differences}" if differences else ""

    def _wanted(self, spec: QueueSpec) -> dict[str, str]:
        return queues.wanted(spec, self._addresses.arn(spec.dead_letters) if spec.dead_letters else None)


def _each(declare: Callable[[QueueSpec], str], specs: Sequence[QueueSpec]) -> list[str]:
    """Call for each spec, several at once; the first error is raised."""
    if len(specs) < 2:
        return [declare(spec) for spec in specs]
    return Workers(min(_TOGETHER, len(specs)), "sqspipes declare").map(declare, specs)
