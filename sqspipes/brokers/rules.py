"""Rules: what SQS checks itself, for the brokers that have to."""

from __future__ import annotations

from sqspipes.brokers.base import Answer, Entry, Kind
from sqspipes.defaults import MESSAGE_BYTES
from sqspipes.errors import OptionError
from sqspipes.messages.ids import LEGAL

#: The answer to a receipt that is good for nothing any more.
LEASE_LOST = Answer(Kind.GONE, "the lease is lost")


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
        if not LEGAL.fullmatch(text):
            allowed = "allowed are 1 to 128 ASCII letters, digits and punctuation"
            return Answer(Kind.NEVER, f"the {what} is {text[:140]!r}: {allowed}")
    try:
        entry.body.encode()
    except UnicodeEncodeError as error:
        return Answer(Kind.NEVER, f"the body is no text: {error}")
    if not 1 <= entry.size <= MESSAGE_BYTES:
        return Answer(Kind.NEVER, f"the body has {entry.size:,} bytes: allowed are 1 to {MESSAGE_BYTES:,}")
    return None
