"""Word: the control word of a client, in the tags of one queue: which tasks are paused, and when all shall stop."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

#: The beginning of the tag of a paused task, and the tag whose every new value is a stop. SQS allows letters,
#: digits, space and ``_.:/=+-@``.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-tags.html
PAUSED, STOP = "sqspipes:paused:", "sqspipes:stop"


@dataclass(frozen=True, slots=True)
class ControlWord:
    """What the tags say: the paused tasks, each with the time of the command, and the last stop's token."""

    paused: Mapping[str, str]
    stop: str | None


def read(tags: Mapping[str, str]) -> ControlWord:
    """Return what a queue's tags say."""
    paused = {key.removeprefix(PAUSED): since for key, since in tags.items() if key.startswith(PAUSED)}
    return ControlWord(paused, tags.get(STOP))


def pausing(tasks: Iterable[str]) -> Mapping[str, str | None]:
    """Return the tags that pause tasks."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {f"{PAUSED}{task}": now for task in tasks}


def resuming(tasks: Iterable[str]) -> Mapping[str, str | None]:
    """Return the change of tags that lets tasks go on."""
    return {f"{PAUSED}{task}": None for task in tasks}


def stopping() -> Mapping[str, str | None]:
    """Return the tag that stops whoever has seen another one before, or began before it."""
    return {STOP: f"{time.time()!r}/{uuid.uuid4().hex}"}


def is_later(token: str, began: float) -> bool:
    """Say whether a stop was asked for after a time, by the clock of whoever asked; older tokens do not tell."""
    seconds, _, rest = token.partition("/")
    try:
        return bool(rest) and float(seconds) > began
    except ValueError:
        return False
