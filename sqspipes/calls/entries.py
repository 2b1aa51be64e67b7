"""Entries: what is sent for a message, to its task's queue or to the dead letters."""

from __future__ import annotations

from dataclasses import replace

from sqspipes.brokers.base import Entry, list_key
from sqspipes.calls.held import Held
from sqspipes.defaults import LETTER_BYTES
from sqspipes.errors import CodecError, TooLargeError
from sqspipes.messages.body import decode, encode
from sqspipes.messages.ids import letter_id
from sqspipes.messages.message import Death, Message
from sqspipes.tasks.task import Task


def message_entry(most: int, queue: str, message: Message, text: str | None, what: str) -> Entry:
    """Return what to send for a message; ``text`` is its value's JSON, ``what`` names it in the error.

    ``most`` is the largest body, in bytes, that the queue takes.

    It leaves the room that its dead letter would need. To a plain list the value goes bare: who reads it knows
    nothing of our bodies, and a broker parses none.
    """
    bare = text if list_key(queue) is not None else None
    entry = Entry(bare or encode(message, text), message.lane, message.key)
    allowed = most - LETTER_BYTES
    if entry.size > allowed:
        raise TooLargeError(
            f"{what} is too large: {entry.size:,} bytes as a message, allowed are {allowed:,}"
        )
    return entry


def as_received(held: Held) -> Message:
    """Return a message as it came, whatever its task did to the value."""
    try:
        return decode(held.delivery, held.level)
    except CodecError:
        return held.message


def letter_entry(task: Task, held: Held, death: Death, most: int) -> Entry:
    """Return a message's dead letter, of at most so many bytes: a group of its own, so that all can be listed."""
    message = as_received(held)
    letter = replace(message, death=replace(death, origin=message.identity), priority=held.level)
    id = letter_id(held.delivery.id, task.name)
    try:
        body = encode(letter)
    except CodecError:  # what was read cannot be written: numbers out of JSON's range, for one
        body = encode(replace(letter, value=None, raw=held.delivery.body, extra={}))
    if len(body) > most:
        body = held.delivery.body  # a foreign body that leaves no room for the reason: kept as it is
    return Entry(body, id, id)
