"""Dead letters: list them, send them back, discard them."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqspipes import message as messages
from sqspipes.brokers.base import MESSAGE_BYTES, Broker, Entry, Kind
from sqspipes.errors import BrokerError, BrokerUnavailableError, CodecError
from sqspipes.message import Death, Delivery, Message
from sqspipes.patience import patiently
from sqspipes.putting import send_many
from sqspipes.task import LONGEST_LEASE, Task

logger = logging.getLogger(__name__)

#: Seconds for which a listing hides what it lists from other listings.
LISTING_SECONDS = 60.0

#: Seconds to wait for more where an answer may be empty though the queue is not.
LAST_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that its task gave up, and why.

    ``value`` is the message's value, or the text of a body that could not be read. ``first_put`` and ``died`` are
    seconds since the epoch. ``error_type`` is ``"MaxReceives"`` where the broker itself gave the message up,
    because it was received too often without being settled: it may kill its process.
    """

    id: str
    task: str
    value: Any
    group: str | None
    priority: int
    error_type: str
    error: str
    traceback: str
    attempts: int
    first_put: float
    died: float
    redrives: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A dead letter with the delivery it came in."""

    letter: DeadLetter
    message: Message
    delivery: Delivery


def listed(broker: Broker, task: Task) -> Iterator[DeadLetter]:
    """Yield a task's dead letters, oldest first as far as the broker keeps order; give them back at the end."""
    found: list[_Found] = []
    try:
        for batch in _receive(broker, task, LISTING_SECONDS):
            found += batch
            yield from (one.letter for one in batch)
    finally:
        _give_back(broker, task.dead_queue, found)


def redrive(broker: Broker, task: Task, ids: Collection[str] | None, timeout: float) -> int:
    """Send dead letters back to their task's queue, in the order in which they died; return how many."""
    chosen, others = _choose(broker, task, ids)
    chosen.sort(key=lambda one: one.letter.died)
    try:
        send_many(broker, lambda: (_redriven(task, one) for one in chosen), timeout)
        _ack(broker, task.dead_queue, chosen)
        return len(chosen)
    except BaseException:
        others += chosen
        raise
    finally:
        _give_back(broker, task.dead_queue, others)


def discard(broker: Broker, task: Task, ids: Collection[str] | None) -> int:
    """Delete dead letters for good; return how many."""
    chosen, others = _choose(broker, task, ids)
    try:
        return _ack(broker, task.dead_queue, chosen)
    finally:
        _give_back(broker, task.dead_queue, others)


def _redriven(task: Task, found: _Found) -> tuple[str, Entry]:
    message = messages.redriven(found.message)
    body = messages.encode(message) if message.raw is None else message.raw
    id = messages.redrive_id(message, task.name)
    return task.queue(task.level(message.priority)), Entry(body, message.lane, id)


def _choose(broker: Broker, task: Task, ids: Collection[str] | None) -> tuple[list[_Found], list[_Found]]:
    chosen: list[_Found] = []
    others: list[_Found] = []
    for batch in _receive(broker, task, LONGEST_LEASE):
        for one in batch:
            (chosen if ids is None or one.letter.id in ids else others).append(one)
    return chosen, others


def _receive(broker: Broker, task: Task, lease: float) -> Iterator[list[_Found]]:
    """Receive all there is, each once, in batches."""
    seen: set[str] = set()
    end = time.monotonic() + lease
    while time.monotonic() < end:
        deliveries = _receive_once(broker, task.dead_queue, lease, uuid.uuid4().hex)
        if not deliveries:
            return
        yield [_read(task, delivery) for delivery in deliveries if delivery.id not in seen]
        seen.update(delivery.id for delivery in deliveries)


def _receive_once(broker: Broker, queue: str, lease: float, attempt: str) -> list[Delivery]:
    limits = broker.limits
    wait = 0.0 if limits.exact else LAST_LOOK_SECONDS
    return patiently(
        lambda: broker.receive(queue, count=limits.entries, wait=wait, lease=lease, attempt=attempt)
    )


def _read(task: Task, delivery: Delivery) -> _Found:
    unreadable: CodecError | None = None
    try:
        message = messages.decode(delivery)
    except CodecError as error:
        message, unreadable = messages.foreign(delivery, raw=delivery.body), error
    death = message.death or _unwritten(task, delivery, message, unreadable)
    letter = DeadLetter(
        id=message.id,
        task=task.name,
        value=message.value if message.raw is None else message.raw,
        group=message.group,
        priority=message.priority,
        error_type=death.error_type,
        error=death.error,
        traceback=death.traceback,
        attempts=death.attempts,
        first_put=message.first_put,
        died=death.died,
        redrives=message.redrives,
    )
    return _Found(letter, message, delivery)


def _size_as_letter(delivery: Delivery, message: Message) -> int:
    """Return the bytes that a message takes as we write it, which may be several times what it took before."""
    try:
        return len(messages.encode(message))
    except CodecError:
        return len(messages.encode(messages.foreign(delivery, raw=delivery.body)))


def _unwritten(task: Task, delivery: Delivery, message: Message, unreadable: CodecError | None) -> Death:
    """Return the reason of a letter that carries none: the broker moved it, or it was too large for a reason."""
    if unreadable is not None:
        kind, error = type(unreadable).__name__, str(unreadable)
    elif _size_as_letter(delivery, message) > MESSAGE_BYTES - messages.LETTER_BYTES:
        kind, error = "TooLargeError", "the message left no room for its reason: the log of its task has it"
    else:
        kind, error = "MaxReceives", "received too often without being settled: it may kill its process"
    return Death(task.name, kind, error, traceback="", attempts=0, died=delivery.sent)


def _ack(broker: Broker, queue: str, found: Sequence[_Found]) -> int:
    """Delete letters; count them."""

    def ask(receipts: list[str]) -> int:
        answers = broker.ack(queue, receipts)
        if any(answer.kind is Kind.AGAIN for answer in answers):
            raise BrokerUnavailableError(f"queue {queue} did not acknowledge all")
        return sum(answer.kind is Kind.OK for answer in answers)

    batches = _batches(found, broker.limits.entries)
    return sum(patiently(partial(ask, [one.delivery.receipt for one in batch])) for batch in batches)


def _give_back(broker: Broker, queue: str, found: Sequence[_Found]) -> None:
    try:
        for batch in _batches(found, broker.limits.entries):
            patiently(
                partial(broker.extend, queue, [(one.delivery.receipt, 0.0) for one in batch]),
                LAST_LOOK_SECONDS,
            )
    except BrokerError as error:
        logger.debug("%s: letters stay hidden until their lease ends: %s", queue, error)


def _batches(found: Sequence[_Found], size: int) -> Iterator[Sequence[_Found]]:
    return (found[start : start + size] for start in range(0, len(found), size))
