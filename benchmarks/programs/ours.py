"""The same pipe of two tasks with sqspipes."""

from __future__ import annotations

import threading
from typing import Any

from benchmarks.programs import work
from benchmarks.programs.instant import Instant
from sqspipes import Broker, TaskClient


def piped(
    broker: str | Broker, first: Any, second: Any, options: dict[str, Any] | None, **keys: Any
) -> TaskClient:
    """Return a client with two tasks, its queues made."""
    client = TaskClient("bench", broker=broker, **options or {})
    client.register_tasks(
        [{"method": first, "name": "vowels", **keys}, {"method": second, "name": "count", **keys}]
    )
    client.create_queues()
    return client


def busy(
    messages: int,
    workers: int,
    seconds: float = 0.0,
    kind: str = "sleep",
    broker: str = "sqs://",
    behind: int = 0,
    groups: int = 0,
    options: dict[str, Any] | None = None,
) -> None:
    """Do a backlog; ``behind`` are messages that wait beyond it, ``groups`` 0 means a group for each message."""
    sink = work.Sink(messages, lines=broker.startswith("sqs"))

    def vowels(word: str) -> list[str]:
        return work.vowels(word, seconds, kind)

    def count(pair: list[str]) -> None:
        sink.add(work.count(pair, seconds, kind)[0])

    def group(word: str) -> int:
        return int(word.rpartition("-")[2]) % groups

    client = piped(broker, vowels, count, options, workers=workers)
    client.put_many(work.words(messages + behind), group=group if groups else None)
    spent = work.go(first=client.queue_names[0])
    client.start()
    work.tell({"done": sink.wait(), **spent()})


def engine(messages: int, workers: int) -> None:
    """Do a backlog on a broker that answers at once."""
    sink = work.Sink(messages)

    def count(pair: list[str]) -> None:
        sink.add(work.count(pair)[0])

    client = piped(Instant(), work.vowels, count, None, workers=workers)
    client.put_many(work.words(messages))
    spent = work.go()
    client.start()
    work.tell({"done": sink.wait(), **spent()})


def serve(
    messages: int,
    workers: int = 0,
    broker: str = "sqs://",
    rate: float = 0.0,
    options: dict[str, Any] | None = None,
) -> None:
    """Note when messages come, until so many have come.

    ``workers`` 0 leaves that to the defaults. ``rate`` 0 means that another process puts them; else this one does.
    """
    times = work.Times(messages)

    def vowels(value: float) -> list[float]:
        return [value, times.called(value)]

    def count(pair: list[float]) -> None:
        times.hopped(*pair)

    keys = {"workers": workers} if workers else {}
    client = piped(broker, vowels, count, options, **keys)
    spent = work.go(first=client.queue_names[0])
    client.start()
    if rate:
        work.at_a_rate(client.put, rate, messages)
    work.tell({**times.wait(), **spent()})


def feed(messages: int, rate: float, broker: str = "sqs://") -> None:
    """Put messages at a rate, one at a time."""
    client = piped(broker, work.vowels, work.count, None)
    client.put(0)
    work.go()
    work.at_a_rate(client.put, rate, messages)
    work.tell({})


def fill(messages: int) -> None:
    """Put a backlog, in one thread."""
    client = piped("sqs://", work.vowels, work.count, None)
    spent = work.go(first=client.queue_names[0])
    client.put_many(work.words(messages))
    work.tell({"done": messages, **spent()})


def put_singly(messages: int, broker: str) -> None:
    """Put messages one at a time, in one thread, by a client of three tasks."""
    client = TaskClient("bench", broker=broker)
    names = ("one", "two", "three")
    client.register_tasks([{"method": work.vowels, "name": name} for name in names])
    client.create_queues()
    words = list(work.words(messages))
    spent = work.go()
    for word in words:
        client.put(word)
    work.tell({"done": messages, **spent()})


def idle(seconds: float, settle: float, priorities: int = 1) -> None:
    """Wait with three tasks for messages that do not come."""
    client = TaskClient("bench", broker="sqs://")
    names = ("one", "two", "three")
    client.register_tasks([{"method": work.vowels, "name": name, "priorities": priorities} for name in names])
    client.create_queues()
    client.start()
    never = threading.Event()
    never.wait(settle)
    spent = work.go(queues=3 * priorities)
    never.wait(seconds)
    work.tell(spent())


def timed(method: Any, workers: int, seconds: float, messages: int) -> TaskClient:
    """Return a client with one task, and messages put that take so many seconds each."""
    client = TaskClient("bench", broker="sqs://")
    client.register_tasks([{"method": method, "workers": workers}])
    client.create_queues()
    client.put_many([seconds] * messages)
    return client


def joining(workers: int, seconds: float, messages: int = 0) -> None:
    """Do slow messages with whoever does them too; ``messages`` are put before, by one of these."""
    client = timed(work.nap, workers, seconds, messages)
    work.go()
    client.start()


def burning(messages: int, seconds: float, processes: int) -> None:
    """Do a backlog of work for the CPU in several processes."""
    client = timed("benchmarks.programs.work:burn", 4, seconds, messages)
    work.go(first=client.queue_names[0])
    options: dict[str, Any] = {"processes": processes}
    client.run(**options)


if __name__ == "__main__":
    work.main(busy, engine, serve, feed, fill, put_singly, idle, joining, burning)
