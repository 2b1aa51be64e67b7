"""Putting: messages into a task's queue from outside a run, one by one or many."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqspipes.brokers.base import Answer, Broker, Entry, Kind
from sqspipes.calls.entries import message_entry
from sqspipes.calls.held import Origin
from sqspipes.calls.outcome import Emission
from sqspipes.defaults import LONGEST_SECONDS
from sqspipes.errors import BrokerError, BrokerUnavailableError, PutError
from sqspipes.messages.ids import checked_name
from sqspipes.messages.message import Message
from sqspipes.messages.values import check_nothing_lazy, encode_value
from sqspipes.operations.patience import patiently
from sqspipes.operations.put_batcher import PutBatcher, PutItem
from sqspipes.support import checks, clocks
from sqspipes.support.forked import called
from sqspipes.support.outage import Outage
from sqspipes.tasks.pipe import Pipe
from sqspipes.tasks.task import Task


def message_of(pipe: Pipe, task: Task, value: Any, priority: Any, group: Any, id: Any) -> tuple[Message, str]:
    """Return a message as it is put into a task's queue, checked, and its value's JSON."""
    message = Message(
        id=uuid.uuid4().hex if id is None else checked_name("id", id),
        value=value,
        group=None if group is None else checked_name("group", group),
        priority=checks.checked_int(f"task {task.name!r}: priority", priority, 0, task.priorities - 1),
    )
    return message, encode_value(value, "value", pipe.json_default)


def send_one(broker: Broker, queue: str, entry: Entry, id: str, seconds: float) -> None:
    """Send one message, trying for so many seconds; it may have arrived when that fails."""

    def ask() -> None:
        answer = broker.send(queue, [entry])[0]
        if answer.kind is Kind.NEVER:
            raise BrokerError(f"queue {queue} refused message {id}: {answer.reason}")
        if answer.kind is not Kind.OK:
            raise BrokerUnavailableError(answer.reason)

    try:
        patiently(ask, seconds)
    except BrokerUnavailableError as error:
        raise not_put(error, id, seconds) from error


def not_put(error: BrokerUnavailableError, id: str, seconds: float) -> BrokerUnavailableError:
    """Return the error for a message that the broker did not answer for."""
    return BrokerUnavailableError(
        f"message {id} could not be put within {seconds:g} s, putting it again with this id is safe: {error}",
        id=id,
    )


@dataclass(slots=True)
class DirectEngine:
    """The engine for a source that is called here and now: what it emits is sent before the call goes on."""

    broker: Broker
    tasks: dict[str, Task]
    sizes: Mapping[str, int]  #: the largest body that each queue takes, in bytes
    timeout: float
    awaited: Callable[[Any], Any]

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Send one output to its queue."""
        if emission.task is None or emission.text is None:
            check_nothing_lazy(emission.value, "result")
            return
        task = self.tasks[emission.task]
        message = Message(emission.id, emission.value, emission.group, task.level(emission.priority))
        queue = task.queue(message.priority)
        most = self.sizes.get(queue, self.broker.limits.message_bytes)
        entry = message_entry(most, queue, message, emission.text, "result")
        send_one(self.broker, queue, entry, message.id, self.timeout)

    def flush(self, origin: Origin) -> None:
        """Return: what was emitted is safe already."""


class _Patience(Outage):
    """An outage that is over ``timeout`` seconds after it began, one way or the other."""

    def __init__(self, broker: str, timeout: float) -> None:
        super().__init__(broker)
        self._timeout = timeout
        self._first: float | None = None

    def failed(self, party: str, error: BaseException, tries: int) -> float:
        now = clocks.monotonic()
        self._first = now if self._first is None else self._first
        left = self._first + self._timeout - now
        if left <= 0:
            raise error
        return min(left, super().failed(party, error, tries))

    def succeeded(self, party: str, asked: float = math.inf) -> None:
        self._first = None
        super().succeeded(party, asked)


@dataclass(slots=True)
class _PutProgress:
    """What came of the values so far; filled by the batchers' threads.

    ``index`` is the first value that is not in the queue, ``beyond`` has those after it that are.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    index: int = 0
    beyond: set[int] = field(default_factory=set)
    error: BaseException | None = None
    failed: int = 0

    def arrived(self, places: Sequence[int]) -> None:
        with self.lock:
            self.sent += len(places)
            self.beyond.update(places)
            while self.index in self.beyond:
                self.beyond.remove(self.index)
                self.index += 1

    def fail(self, error: BaseException, place: int | None = None) -> None:
        """Keep the error of the first value that failed."""
        with self.lock:
            place = self.index if place is None else place
            if self.error is None or place < self.failed:
                self.error, self.failed = error, place


def send_many(
    broker: Broker,
    entries: Callable[[], Iterator[tuple[str, Entry]]],
    timeout: float,
    linger: float | None = None,
) -> int:
    """Send (queue, entry) pairs in full requests, several in flight, in order within each group.

    What comes before a pair that cannot be made is sent. ``linger`` None is the broker's own. Raises ``PutError``.
    """
    progress = _PutProgress()
    seconds = broker.limits.linger if linger is None else linger
    outage = _Patience(broker.url, timeout)
    batchers: dict[str, PutBatcher] = {}
    index = -1
    try:
        for index, (queue, entry) in enumerate(entries()):
            if queue not in batchers:
                batchers[queue] = _batcher(broker, queue, outage, progress)
            batcher = batchers[queue]
            if not batcher.wait_for_room() or progress.error is not None:
                break
            batcher.add(PutItem((index, entry), entry.group, entry.size, seconds))
    except Exception as error:
        progress.fail(error, index + 1)
    except BaseException:
        for batcher in batchers.values():
            batcher.close(0.0)  # Ctrl-C: what was not asked for yet is given up
        raise
    deadline = clocks.monotonic() + min(timeout, LONGEST_SECONDS) + 1
    finished = [batcher.close(deadline) for batcher in batchers.values()]
    if progress.error is None and not all(finished):
        reason = f"{broker.url} did not answer for all values within {timeout:g} s"
        progress.fail(BrokerUnavailableError(reason))
    if progress.error is not None:
        raise stopped(progress.error, progress.index, progress.sent) from progress.error
    return progress.sent


def stopped(error: BaseException, index: int = 0, sent: int = 0) -> PutError:
    """Return the error of ``put_many`` for what stopped it, by default before it began."""
    return PutError(
        f"put_many stopped at value {index}, {sent} were sent: {error}",
        index=index,
        sent=sent,
    )


def _batcher(broker: Broker, queue: str, outage: Outage, progress: _PutProgress) -> PutBatcher:
    def request(pairs: Sequence[tuple[int, Entry]]) -> list[Answer]:
        return broker.send(queue, [entry for _, entry in pairs])

    def answered(pairs: list[tuple[tuple[int, Entry], Answer]]) -> None:
        refused = [(index, answer) for (index, _), answer in pairs if answer.kind is not Kind.OK]
        for index, answer in refused:
            progress.fail(BrokerError(f"queue {queue} refused it: {answer.reason}"), index)
        progress.arrived([index for (index, _), answer in pairs if answer.kind is Kind.OK])

    def died(name: str, error: BaseException) -> None:
        progress.fail(error)

    return PutBatcher(f"put {queue}", request, answered, died, outage, broker.limits)


def each(values: Iterable[Any], choice: Any, default: Any) -> Callable[[Any], Any]:
    """Return a function of a value: the choice itself if it is callable, else the constant."""
    if callable(choice):
        return partial(called, choice)
    return lambda _: default if choice is None else choice
