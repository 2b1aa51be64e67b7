"""Ids and groups: what people write, what SQS takes, and the ids that follow from a message's identity."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from sqspipes.defaults import LONGEST_NAME
from sqspipes.errors import OptionError

_TOO_LONG = 10**LONGEST_NAME

# Message group and deduplication ids: up to 128 characters, ASCII letters, digits and punctuation.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
LEGAL = re.compile(r"[!-~]{1,128}")

_decoder = json.JSONDecoder()
_sorting = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def legal(name: str) -> str:
    """Return a group or an id as SQS accepts it: as it is, or the hash of what SQS would refuse."""
    if LEGAL.fullmatch(name):
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def checked_name(option: str, name: Any) -> str:
    """Return a group or an id that a user gave, as text: a member of an enumeration of texts or ints is its value."""
    if isinstance(name, int) and not isinstance(name, bool):
        if abs(name) < _TOO_LONG:
            return int.__repr__(name)
        name = f"an int of more than {LONGEST_NAME:,} digits"
    elif isinstance(name, str):
        text = str.__str__(name)
        if 0 < len(text) <= LONGEST_NAME:
            return text
        name = f"a text of {len(text)} characters" if text else "an empty text"
    else:
        name = repr(name)
    raise OptionError(f"{option} is {name}: allowed is a text of 1 to {LONGEST_NAME:,} characters, or an int")


def derived(*parts: str | int) -> str:
    """Return an id that is a function of the parts, and of nothing else."""
    text = "".join([f"{len(part)}:{part}" for part in map(str, parts)])
    return _hashed(text)


def _hashed(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def result_id(identity: str, task: str) -> str:
    """The id of the one result of a call for the message with this identity."""
    # The same as ``derived("result", identity, task)``: it is made for each call.
    return _hashed(f"6:result{len(identity)}:{identity}{len(task)}:{task}")


def output_id(kind: str, identity: str, task: str, content: str, equals: int) -> str:
    """The id of one of several outputs; ``equals`` counts the equal ones before it in the same call.

    ``kind`` is ``"output"`` or ``"rollback"``: what a rollback hands on is another output than what its call did.
    """
    return derived(kind, identity, task, content, equals)


def content_of(task: str, group: str | None, priority: int, text: str) -> str:
    """Return what makes an output equal to another one: its destination, and its JSON but for the order of keys."""
    return derived(task, group or "", priority, _sorted(text))


def _sorted(text: str) -> str:
    """Return JSON text with the keys of each object sorted."""
    if "{" not in text:
        return text
    try:
        return _sorting.encode(_decoder.decode(text))
    except (ValueError, RecursionError):  # too deep, or a number too long: as it is
        return text


def letter_id(stored: str, task: str) -> str:
    """The deduplication id, and group, of a message's dead letter; ``stored`` is the broker's message id.

    A message that was put back, by a redrive or by another program, has another one: its next letter is a new one.
    """
    return derived("letter", stored, task)


def redrive_id(stored: str) -> str:
    """The deduplication id of what a redrive puts back; ``stored`` is the broker's message id of the letter.

    It is the same when the redrive is repeated.
    """
    return derived("redrive", stored)


def origin_mark(identity: str, id: str, group: str | None, redrives: int) -> str:
    """Return the mark of an origin that was written for this message.

    Workers of older versions copy unknown keys to what they hand on: there the origin is somebody else's.
    """
    return derived("origin", identity, id, group or "", redrives)
