"""Putting: messages into a task's queue from outside a run, one by one or many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqspipes import message as messages
from sqspipes.brokers.base import Answer, Broker, Entry, Kind
from sqspipes.errors import BrokerError, BrokerUnavailableError, PutError, TooLargeError
from sqspipes.message import Message
from sqspipes.runner.batcher import Batcher, Item
from sqspipes.runner.executor import Emission
from sqspipes.runner.held import Origin
from sqspipes.runner.outage import Outage, pause
from sqspipes.task import Task


def entry_of(
    broker: Broker, task: Task, message: Message, text: str, what: str, id: str | None = None
) -> Entry:
    """Return what to send for a message; ``id`` is its deduplication id where that is not its own."""
    body = messages.encode(message, text)
    most = broker.message_bytes(task.queue(message.priority)) - messages.LETTER_BYTES
    if len(body) > most:
        raise TooLargeError(f"{what} is too large: {len(body):,} bytes as a message, allowed are {most:,}")
    return Entry(body, message.lane, messages.legal(id or message.id))


def send_one(broker: Broker, queue: str, entry: Entry, id: str, timeout: float) -> None:
    """Send one message, trying for ``timeout`` seconds; it may have arrived when that fails."""
    deadline, tries, resting = time.monotonic() + timeout, 0, threading.Event()
    while True:
        try:
            answer = broker.send(queue, [entry])[0]
        except BrokerUnavailableError as error:
            reason: Exception = error
        else:
            if answer.kind is Kind.OK:
                return
            if answer.kind is Kind.NEVER:
                raise BrokerError(f"queue {queue} refused message {id}: {answer.reason}")
            reason = BrokerError(answer.reason)
        tries += 1
        seconds = pause(tries)
        if time.monotonic() + seconds > deadline:
            raise BrokerUnavailableError(
                f"message {id} could not be put within {timeout:g} s, putting it again with this id is safe: {reason}",
                id=id,
            ) from reason
        resting.wait(seconds)


@dataclass(slots=True)
class DirectEngine:
    """The engine for a source that is called here and now: what it emits is sent before the call goes on."""

    broker: Broker
    tasks: dict[str, Task]
    timeout: float

    def emit(self, origin: Origin, emission: Emission) -> None:
        """Send one output to its queue."""
        if emission.task is None or emission.text is None:
            return
        task = self.tasks[emission.task]
        message = Message(emission.id, emission.value, emission.group, task.level(emission.priority))
        entry = entry_of(self.broker, task, message, emission.text, "result")
        send_one(self.broker, task.queue(message.priority), entry, message.id, self.timeout)

    def flush(self, origin: Origin) -> None:
        """Return: what was emitted is safe already."""

    def done(self, call: object, outcomes: Sequence[object]) -> None:
        """Nothing is held, so nothing is settled."""

    def abandoned(self, call: object) -> None:
        """Nothing is held, so nothing is given back."""


class _Patience(Outage):
    """An outage that is over ``timeout`` seconds after it began, one way or the other."""

    def __init__(self, broker: str, timeout: float) -> None:
        super().__init__(broker)
        self._timeout = timeout
        self._first: float | None = None

    def failed(self, party: str, error: BaseException, tries: int) -> float:
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        if now - self._first > self._timeout:
            raise error
        return super().failed(party, error, tries)

    def succeeded(self, party: str) -> None:
        self._first = None
        super().succeeded(party)


@dataclass(slots=True)
class _Progress:
    """What came of the values so far; filled by the batchers' threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    error: BaseException | None = None
    index: int = 0

    def fail(self, error: BaseException, index: int) -> None:
        with self.lock:
            if self.error is None or index < self.index:
                self.error, self.index = error, index


def send_many(broker: Broker, entries: Callable[[], Iterator[tuple[str, Entry]]], timeout: float) -> int:
    """Send (queue, entry) pairs in full requests, several in flight, in order within each group.

    What comes before a pair that cannot be made is sent. Raises ``PutError``.
    """
    progress = _Progress()
    outage = _Patience(broker.url, timeout)
    batchers: dict[str, Batcher] = {}
    index = -1
    try:
        for index, (queue, entry) in enumerate(entries()):
            if queue not in batchers:
                batchers[queue] = _batcher(broker, queue, outage, progress)
            batcher = batchers[queue]
            if not batcher.wait_for_room() or progress.error is not None:
                break
            batcher.add(Item((index, entry), entry.group, len(entry.body), broker.limits.linger))
    except Exception as error:
        progress.fail(error, index + 1)
    finally:
        for batcher in batchers.values():
            batcher.close(time.monotonic() + timeout + 1)
    if progress.error is not None:
        raise PutError(
            f"put_many stopped at value {progress.index}, {progress.sent} were sent: {progress.error}",
            index=progress.index,
            sent=progress.sent,
        ) from progress.error
    return progress.sent


def _batcher(broker: Broker, queue: str, outage: Outage, progress: _Progress) -> Batcher:
    def request(pairs: Sequence[tuple[int, Entry]]) -> list[Answer]:
        return broker.send(queue, [entry for _, entry in pairs])

    def answered(pair: tuple[int, Entry], answer: Answer) -> None:
        if answer.kind is not Kind.OK:
            progress.fail(BrokerError(f"queue {queue} refused it: {answer.reason}"), pair[0])
            return
        with progress.lock:
            progress.sent += 1

    def died(name: str, error: BaseException) -> None:
        progress.fail(error, progress.sent)

    return Batcher(f"put {queue}", request, answered, died, outage, broker.limits)


def each(values: Iterable[Any], choice: Any, default: Any) -> Callable[[Any], Any]:
    """Return a function of a value: the choice itself if it is callable, else the constant."""
    if callable(choice):
        return choice  # type: ignore[no-any-return]
    return lambda _: default if choice is None else choice
