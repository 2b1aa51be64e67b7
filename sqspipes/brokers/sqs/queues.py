"""Queues: their attributes as we make them, and how an existing queue differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from sqspipes.brokers.base import QueueSpec

#: Seconds that a queue keeps a message: the longest SQS allows.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
RETENTION = 1_209_600

#: What is read of an existing queue.
READ = (
    "QueueArn",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "RedrivePolicy",
    "DeduplicationScope",
    "FifoThroughputLimit",
)

# Each receive passes its own lease and each message its own id: these two change nothing.
_WITHOUT_EFFECT = {"VisibilityTimeout", "ContentBasedDeduplication", "FifoQueue"}
_JSON = {"RedrivePolicy", "RedriveAllowPolicy", "Policy"}
_DEFAULTS = {"DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}


def wanted(spec: QueueSpec, dead_letter_arn: str | None) -> dict[str, str]:
    """Return the attributes that a queue is made with."""
    attributes = {
        "FifoQueue": "true",
        "ContentBasedDeduplication": "false",
        "MessageRetentionPeriod": str(RETENTION),
        "VisibilityTimeout": str(round(spec.lease)),
        "DeduplicationScope": "messageGroup" if spec.high_throughput else "queue",
        "FifoThroughputLimit": "perMessageGroupId" if spec.high_throughput else "perQueue",
    }
    if dead_letter_arn is not None:
        policy = {
            "deadLetterTargetArn": dead_letter_arn,
            "maxReceiveCount": spec.max_receives,
        }
        attributes["RedrivePolicy"] = json.dumps(policy)
    return {**attributes, **spec.attributes}


def differences(there: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[str]:
    """Yield how a queue that is there differs from the one that would have been made."""
    for name, value in attributes.items():
        if name in _WITHOUT_EFFECT:
            continue
        found = there.get(name, _DEFAULTS.get(name))
        if name == "RedrivePolicy":
            yield from _policy_differences(found, value)
        elif _plain(name, found) != _plain(name, value):
            yield f"{name} is {found or 'not set'}, not {value}"


def _policy_differences(found: str | None, value: str) -> Iterator[str]:
    if not found:
        yield "it has no RedrivePolicy"
        return
    there, ours = _object(found), _object(value)
    for name in ("deadLetterTargetArn", "maxReceiveCount"):
        if str(there.get(name)) != str(ours.get(name)):
            yield f"{name} is {there.get(name)}, not {ours.get(name)}"


def _plain(name: str, value: str | None) -> object:
    if name in _JSON and value:
        return _object(value) or value
    return value.lower() if value else value


def _object(text: str) -> dict[str, object]:
    """Return the JSON object that a text is, or an empty one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
