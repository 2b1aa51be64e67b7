"""What the Redis broker is given, checked before anything is sent."""

from __future__ import annotations

import re

from sqspipes.brokers.base import MESSAGE_BYTES, Answer, Entry, Kind
from sqspipes.errors import OptionError

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_LEGAL = re.compile(r"[!-~]{1,128}")


def check_count(option: str, count: int, most: int) -> None:
    """Refuse a batch that is empty or too large."""
    if not 1 <= count <= most:
        raise OptionError(f"{option} is {count}: allowed are 1 to {most}")


def check_seconds(option: str, seconds: float, longest: float) -> None:
    """Refuse a time that is negative or too long."""
    if not 0 <= seconds <= longest:
        raise OptionError(f"{option} is {seconds}: allowed are 0 to {longest:g} seconds")


def refusal(entry: Entry) -> Answer | None:
    """Return the answer to an entry that no queue takes."""
    for what, text in (("group", entry.group), ("id", entry.id)):
        if not _LEGAL.fullmatch(text):
            allowed = "allowed are 1 to 128 ASCII letters, digits and punctuation"
            return Answer(Kind.NEVER, f"the {what} is {text[:140]!r}: {allowed}")
    try:
        size = body_bytes(entry.body)
    except UnicodeEncodeError as error:
        return Answer(Kind.NEVER, f"the body is no text: {error}")
    if not 1 <= size <= MESSAGE_BYTES:
        return Answer(Kind.NEVER, f"the body has {size:,} bytes: allowed are 1 to {MESSAGE_BYTES:,}")
    return None


def body_bytes(body: str) -> int:
    """Return how many bytes a body has on its way."""
    return len(body) if body.isascii() else len(body.encode())
