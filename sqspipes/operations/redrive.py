"""Mending: dead letters are sent back or deleted, batch by batch, as their queue hands them out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqspipes.brokers.base import Answer, Broker, Entry, Kind, Limits
from sqspipes.defaults import TIMEOUT
from sqspipes.errors import BrokerError, CodecError, OptionError, QueueMissingError
from sqspipes.messages import queue_names
from sqspipes.messages.ids import derived
from sqspipes.messages.message import Delivery
from sqspipes.operations.dead_letters import FoundLetter, read, redrive_entry
from sqspipes.operations.patience import patiently
from sqspipes.operations.queues import Queues
from sqspipes.operations.receiving import LAST_LOOK_SECONDS, Look
from sqspipes.support import checks, lines
from sqspipes.tasks.pipe import Pipe, TaskName
from sqspipes.tasks.task import Task

logger = lines.logger(__name__)


def checked_ids(ids: Any) -> list[str] | None:
    """Return the ids or keys of the letters that are meant; None for all."""
    if ids is None:
        return None
    if isinstance(ids, Collection) and not isinstance(ids, str) and all(isinstance(id, str) for id in ids):
        return list(ids)
    raise checks.refuse("ids", ids, "a list of ids")


def chosen(broker: Broker, domain: str, pipe: Pipe, queues: Queues, name: TaskName | None) -> list[Task]:
    """Return the tasks whose dead letters are meant, the queues of those that are registered made."""
    meant, unknown = list(pipe.tasks), None
    if name is not None:
        try:
            meant = [pipe.reachable.get(str(name)) or pipe.named(name)]
        except OptionError as error:
            meant, unknown = [], error
    found = [task for task in meant if task.queues]
    if isinstance(name, str) and not found:  # it is registered no more, or it is a source now
        found = [task for task in [former_task(broker, domain, name)] if task]
    if unknown is not None and not found:
        raise unknown
    queues.declare(task for task in found if task.index >= 0)
    return found


def former_task(broker: Broker, domain: str, name: str) -> Task | None:
    """Return a task that is not registered, but whose dead-letter queue is there."""
    queue = queue_names.dead_queue(domain, name)
    if queue_names.parse(queue) is None:
        return None
    try:
        patiently(lambda: broker.depth(queue))
    except QueueMissingError:
        return None
    return Task(domain, name, index=-1, method=None)


def redrive(broker: Broker, task: Task, target: Task, ids: Collection[str] | None, timeout: float) -> int:
    """Send dead letters to a task's queue; return how many are there now, and are dead letters no more.

    Each is deleted once it is safe in that queue. One that is refused stays, with a WARNING, and stops no other.
    """
    return _mend(broker, task, ids, _Redrive(broker, task, target, timeout))


def discard(broker: Broker, task: Task, ids: Collection[str] | None) -> int:
    """Delete dead letters for good; return how many."""
    return _mend(broker, task, ids, lambda look, found: len(look.delete([one.delivery for one in found])))


def _mend(
    broker: Broker,
    task: Task,
    ids: Collection[str] | None,
    mend: Callable[[Look, list[FoundLetter]], int],
) -> int:
    """Mend letters, all of them, or some until each id or key is found, as often as it is named.

    The others are held until the end.
    """
    if ids is not None and not ids:
        return 0
    look = Look(broker, task.dead_queue, endless=ids is None)
    left, count = Counter(ids or ()), 0  # an id may be that of several letters, and is then there as often
    try:
        for batch in look.batches():
            found = [read(task, delivery) for delivery in batch]
            named = [(one, one.letter.key if one.letter.key in left else one.letter.id) for one in found]
            chosen = [one for one, name in named if ids is None or name in left]
            left.subtract(name for _, name in named if name in left)
            count += mend(look, chosen) if chosen else 0
            if ids is not None and not +left:
                break
        missing = look.missing() if ids is None or +left else ""
    finally:
        look.give_back()
    if missing:
        logger.warning("not all dead letters of %s were looked at: %s", task.name, missing)
    return count


class _ReturnedLetter(NamedTuple):
    """A letter on its way back: its delivery, its message's id, where it goes and what is sent."""

    delivery: Delivery
    id: str
    queue: str
    entry: Entry


@dataclass(slots=True)
class _Redrive:
    """Sends letters back: what a batch has is sent, then deleted, before the next batch is received.

    One that dies again meanwhile is left for another time: ``sent`` has what went back, and how often it had before.
    ``bare``: bodies went back that cannot tell; then what died after this redrive began is left.
    """

    broker: Broker
    task: Task
    target: Task
    timeout: float
    began: float = field(default_factory=time.time)
    sent: dict[str, int] = field(default_factory=dict)
    bare: bool = False

    def __call__(self, look: Look, found: list[FoundLetter]) -> int:
        """Send a batch and delete what arrived; return how many were deleted."""
        safe: list[Delivery] = []
        count = 0
        requests = _requests(self._parcels(found), self.broker.limits)
        try:
            for number, parcels in enumerate(requests):
                rest = [one.delivery for later in requests[number:] for one in later]
                if look.is_late([*safe, *rest]):
                    count += self._delete(look, safe)
                    look.renew([one for one in rest if look.holds(one)])
                self._send(look, [one for one in parcels if look.holds(one.delivery)], safe)
        except BaseException:
            with suppress(BrokerError):
                self._delete(look, safe, LAST_LOOK_SECONDS)
            raise
        return count + self._delete(look, safe)

    def _parcels(self, found: Iterable[FoundLetter]) -> Iterator[_ReturnedLetter]:
        for one in found:
            if self._died_again(one):
                continue
            id = one.message.id
            try:
                queue, entry = redrive_entry(self.task, self.target, one)
            except CodecError as error:
                self._tell_refused(id, str(error))
                continue
            most = self.broker.message_bytes(queue)
            if entry.size > most:
                self._tell_refused(id, f"it has {entry.size:,} bytes, queue {queue} takes {most:,}")
                continue
            yield _ReturnedLetter(one.delivery, id, queue, entry)

    def _died_again(self, found: FoundLetter) -> bool:
        """Say whether a letter is of a message that went back before, in this redrive; else take note of it."""
        message, delivery = found.message, found.delivery
        if self.bare and delivery.sent > self.began:
            return True
        # What older workers wrote tells no origin. Messages that share an id and a group are told apart by it.
        alike = derived(message.id, message.lane, message.priority)
        identity = message.identity if message.death is None else message.death.origin
        again = message.redrives > self.sent.get(identity or alike, message.redrives)
        if not again:
            self.sent.update({identity or alike: message.redrives, alike: message.redrives})
            self.bare |= message.raw is not None or message.id == delivery.id
        return again

    def _send(self, look: Look, parcels: Sequence[_ReturnedLetter], safe: list[Delivery]) -> None:
        """Send one request, and add to ``safe`` what has arrived, also when that fails in part."""
        answers: list[tuple[_ReturnedLetter, Answer]] = []
        try:
            look.ask(
                lambda some: self.broker.send(some[0].queue, [one.entry for one in some]),
                parcels,
                self.timeout,
                answers,
            )
        finally:
            for parcel, answer in answers:
                if answer.kind is Kind.OK:
                    safe.append(parcel.delivery)
                else:
                    self._tell_refused(parcel.id, f"queue {parcel.queue}: {answer.reason}")

    def _delete(self, look: Look, safe: list[Delivery], seconds: float = TIMEOUT) -> int:
        """Delete what has arrived; return how many are gone by it."""
        sent, gone = len(safe), 0
        try:
            gone = len(look.delete(safe, seconds))
        finally:
            safe.clear()
            if gone < sent:
                logger.warning(
                    "%d dead letters of %s were sent back and could not be deleted: they may be there still",
                    sent - gone,
                    self.task.name,
                )
        return gone

    def _tell_refused(self, id: str, reason: str) -> None:
        logger.warning("dead letter %s of %s was refused, and stays: %s", id, self.task.name, reason)


def _requests(parcels: Iterable[_ReturnedLetter], limits: Limits) -> list[list[_ReturnedLetter]]:
    """Return parcels as requests: each for one queue and with one message of a group, in their order.

    Entries of a request fail one by one, and nothing could repair an overtaking.
    """
    requests: list[list[_ReturnedLetter]] = []
    last: dict[tuple[str, str], int] = {}
    for parcel in parcels:
        key = parcel.queue, parcel.entry.group
        first = last.get(key, -1) + 1
        fits = (place for place in range(first, len(requests)) if _fits(parcel, requests[place], limits))
        last[key] = place = next(fits, len(requests))
        if place == len(requests):
            requests.append([])
        requests[place].append(parcel)
    return requests


def _fits(parcel: _ReturnedLetter, request: list[_ReturnedLetter], limits: Limits) -> bool:
    size = sum(one.entry.size for one in request) + parcel.entry.size
    return request[0].queue == parcel.queue and len(request) < limits.entries and size <= limits.request_bytes
