"""Dead letters: what one tells, and the list of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqspipes.brokers.base import Broker, Entry
from sqspipes.defaults import LETTER_BYTES, MESSAGE_BYTES
from sqspipes.errors import CodecError
from sqspipes.messages.body import decode, encode, foreign, redriven
from sqspipes.messages.ids import derived, redrive_id
from sqspipes.messages.message import Death, Delivery, Message
from sqspipes.operations.receiving import Look
from sqspipes.support import lines
from sqspipes.tasks.task import Task

logger = lines.logger(__name__)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that its task gave up, and why.

    ``value`` is the message's value, or the text of a body that could not be read. ``first_put`` and ``died`` are
    seconds since the epoch. ``error_type`` is ``"MaxReceives"`` where the broker itself gave the message up,
    because it was received too often without being settled: it may kill its process. ``key`` is 16 hex digits that no
    other letter has, where several share an ``id``; ``redrive`` and ``discard`` take either.
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
    key: str


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A dead letter with the delivery it came in."""

    letter: DeadLetter
    message: Message
    delivery: Delivery


# Listing


@dataclass(slots=True)
class _End:
    """How a listing ended; ``missing`` says what it did not show."""

    reached: bool = False
    missing: list[str] = field(default_factory=list)


class DeadLetters(Iterator[DeadLetter]):
    """The dead letters of one task or of several, one after the other; no letter is kept.

    ``whole`` is True once the end is reached and every letter was listed. ``missing`` says in words what was not,
    and so does a WARNING. ``close`` gives back what was taken, and so does the end.
    """

    def __init__(self, broker: Broker, tasks: Sequence[Task]) -> None:
        self._end = _End()
        # The generator must not know this object: to drop the object gives the letters back at once.
        self._letters = _listed(broker, tasks, self._end)

    @property
    def whole(self) -> bool:
        """Whether the end is reached and every letter was listed."""
        return self._end.reached and not self._end.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not listed, in words."""
        return tuple(self._end.missing)

    def __next__(self) -> DeadLetter:
        return next(self._letters)

    def close(self) -> None:
        """Give back what was taken; nothing more is listed."""
        self._letters.close()


def _listed(broker: Broker, tasks: Sequence[Task], end: _End) -> Generator[DeadLetter, None, None]:
    """Yield the dead letters of tasks, each task's as its queue hands them out."""
    for task in tasks:
        # Receives that overlap may be answered in another order. Only where one takes long is that worth it.
        together = 1 if broker.limits.exact else broker.limits.requests_in_flight
        look = Look(broker, task.dead_queue, together=together)
        try:
            for batch in look.batches():
                yield from (read(task, delivery).letter for delivery in batch)
            missing = look.missing()
        finally:
            look.give_back()
        if missing:
            end.missing.append(f"task {task.name}: {missing}")
            logger.warning("not all dead letters of %s are listed: %s", task.name, missing)
    end.reached = True


# Reading and writing


def read(task: Task, delivery: Delivery) -> FoundLetter:
    """Return the letter that a delivery is, whatever its body."""
    unreadable: CodecError | None = None
    try:
        message = decode(delivery)
    except CodecError as error:
        message, unreadable = foreign(delivery, raw=delivery.body), error
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
        key=derived("key", delivery.id)[:16],
    )
    return FoundLetter(letter, message, delivery)


def redrive_entry(task: Task, target: Task, found: FoundLetter) -> tuple[str, Entry]:
    """Return the queue that a letter goes back to, and what is sent; a body that is not ours goes as it came."""
    message = redriven(found.message)
    id = redrive_id(found.delivery.id)
    if message.raw is not None:
        body = message.raw
    elif message.id == found.delivery.id:  # only what is not ours is called by the broker's id
        body = found.delivery.body
    else:
        body = encode(message)
    return target.queue(target.level(message.priority)), Entry(body, message.lane, id)


def _size_as_letter(delivery: Delivery, message: Message) -> int:
    """Return the bytes that a message takes as we write it, which may be several times what it took before."""
    try:
        return len(encode(message))
    except CodecError:
        return len(encode(foreign(delivery, raw=delivery.body)))


def _unwritten(task: Task, delivery: Delivery, message: Message, unreadable: CodecError | None) -> Death:
    """Return the reason of a letter that carries none: the broker moved it, or it was too large for a reason."""
    if unreadable is not None:
        kind, error = type(unreadable).__name__, str(unreadable)
    elif _size_as_letter(delivery, message) > MESSAGE_BYTES - LETTER_BYTES:
        kind, error = "TooLargeError", "the message left no room for its reason: the log of its task has it"
    else:
        kind, error = "MaxReceives", "received too often without being settled: it may kill its process"
    return Death(task.name, kind, error, traceback="", attempts=0, died=delivery.sent)
