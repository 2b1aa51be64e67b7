"""Rules: what SQS checks itself, for the brokers that have to."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from sqspipes.brokers.base import Answer, Entry, Kind
from sqspipes.defaults import MESSAGE_BYTES
from sqspipes.errors import BrokerUnavailableError, OptionError
from sqspipes.messages.ids import LEGAL

_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)

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


def lack_of_files(error: BaseException | None) -> OSError | None:
    """Return the error of too many open files that an error came of, or None: another thread may close some."""
    found = (one for one in chain(error) if isinstance(one, OSError) and one.errno in _TOO_MANY_FILES)
    return next(found, None)


def too_many_files(where: str, error: BaseException | None) -> BrokerUnavailableError:
    """Return the error for that; ``where`` is what met it."""
    return BrokerUnavailableError(f"{where}: this process has too many open files (ulimit -n): {error}")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
