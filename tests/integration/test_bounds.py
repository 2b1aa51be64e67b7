"""Bounds: whatever is fast and whatever is slow, a run holds so much in memory. And the names of its threads."""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sqspipes import PutError, TaskClient
from sqspipes.brokers.base import Answer, Broker, Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.defaults import MOST_WAITING_BYTES, MOST_WAITING_ITEMS
from sqspipes.engine.pace import MOST_BEHIND, MOST_LOOK_AHEAD, MOST_PARKED
from sqspipes.engine.stream import MOST_RESULTS
from sqspipes.errors import BrokerUnavailableError
from tests import inside
from tests.integration.support import PATIENCE, Seen, passed, piped, until

WORKERS = 4

#: What one more answer may bring.
ANSWER = SqliteBroker.limits.entries


class Behind(SqliteBroker):
    """A broker in memory whose sends to one queue wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.slow = ""
        self.go_on = threading.Event()

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        if queue == self.slow:
            self.go_on.wait(PATIENCE)
        return super().send(queue, entries)


@pytest.fixture
def broker() -> Iterator[Behind]:
    with contextlib.closing(Behind()) as broker:
        yield broker
        broker.go_on.set()


def settled(number: Callable[[], int]) -> int:
    """Return a number once it has stayed the same for a while."""
    seen, resting = [-1], threading.Event()
    while len(seen) < 6 or len(set(seen[-6:])) > 1:
        resting.wait(0.05)
        seen.append(number())
    return seen[-1]


def put_groups(broker: Broker, queue: str, groups: int, each: int) -> None:
    """Send so many messages of each group, ten in a request."""
    ids = itertools.count()
    for group in range(groups):
        for start in range(0, each, 10):
            count = min(10, each - start)
            broker.send(queue, [Entry(f"{group}", f"g{group}", f"i{next(ids)}") for _ in range(count)])


def held(broker: Broker, queue: str) -> Callable[[], int]:
    """Return a function that tells how many messages of a queue are held: here there is nobody else."""
    return lambda: broker.depth(queue).in_flight


# What comes in


def test_slow_task_takes_in_no_more_than_it_looks_ahead(domain: str, broker: Behind) -> None:
    seen, gate = Seen(), threading.Event()

    def take(value: int) -> None:
        seen.take(value)
        if value >= 500:  # until here it is fast, and looks far ahead
            gate.wait(PATIENCE)

    with piped(domain, {"broker": broker}, {"method": take, "workers": WORKERS}) as client:
        client.put_many(range(3000))
        with client.start():
            seen.wait(500 + WORKERS)
            most = WORKERS + MOST_LOOK_AHEAD + ANSWER
            assert WORKERS <= settled(held(broker, client.queue_names[0])) <= most
            gate.set()


def test_group_behind_a_parked_message_stays_at_the_broker(domain: str, broker: Behind) -> None:
    def fail(value: int) -> None:
        raise ValueError

    with piped(domain, {"broker": broker}, fail, backoff=3600) as client:
        client.create_queues()
        put_groups(broker, client.queue_names[0], 1, 20_000)
        with client.start():
            assert settled(held(broker, client.queue_names[0])) <= ANSWER


def test_messages_behind_parked_ones_are_bounded(domain: str, broker: Behind) -> None:
    def fail(value: int) -> None:
        raise ValueError

    with piped(domain, {"broker": broker}, {"method": fail, "workers": 100}, backoff=3600) as client:
        client.create_queues()
        put_groups(broker, client.queue_names[0], 190, 10)
        with client.start() as run:
            lanes = inside.lanes(run, "fail")
            until(lambda: lanes.waiting >= MOST_BEHIND // 2 - ANSWER)
            assert settled(lambda: lanes.waiting) <= MOST_BEHIND // 2 + ANSWER


def test_parked_messages_are_bounded(domain: str, broker: Behind) -> None:
    def fail(value: int) -> None:
        raise ValueError

    with piped(domain, {"broker": broker}, {"method": fail, "workers": WORKERS}, backoff=3600) as client:
        client.put_many(range(MOST_PARKED + 500))
        with client.start() as run:
            lanes = inside.lanes(run, "fail")
            until(lambda: run.summary.failed == MOST_PARKED + 500, 2 * PATIENCE)
            assert (lanes.parked, inside.leases(run)) == (MOST_PARKED, MOST_PARKED)


# What goes on


@pytest.mark.parametrize(
    ("size", "most"),
    [(1, MOST_WAITING_ITEMS), (200_000, MOST_WAITING_BYTES // 200_000 + 1)],
    ids=["many", "large"],
)
def test_generator_waits_for_a_queue_that_is_behind(
    domain: str, broker: Behind, size: int, most: int
) -> None:
    yielded = [0]

    def split(value: int) -> Iterator[str]:
        for number in range(1_000_000):
            yielded[0] += 1
            yield f"{number}".ljust(size)

    with piped(domain, {"broker": broker}, split, {"name": "after"}, stop_timeout=0.1) as client:
        client.put(1)
        broker.slow = f"{domain}--after.fifo"
        with client.start() as run:
            until(lambda: yielded[0] >= most)
            assert settled(lambda: yielded[0]) <= most + 1
            assert inside.to_send(run, broker.slow) <= most
            broker.go_on.set()


@pytest.mark.parametrize("source", ["function", "generator"])
def test_source_waits_for_a_queue_that_is_behind(domain: str, broker: Behind, source: str) -> None:
    numbers = itertools.count()
    made = [0]

    def feed() -> int:
        made[0] = next(numbers)
        return made[0]

    def feed_on() -> Iterator[int]:
        while True:
            yield feed()

    method = feed if source == "function" else feed_on
    with piped(
        domain,
        {"broker": broker},
        {"method": method, "workers": WORKERS},
        {"name": "after"},
        stop_timeout=0.1,
    ) as client:
        broker.slow = f"{domain}--after.fifo"
        with client.start():
            until(lambda: made[0] > 0 or source == "generator")
            # Each worker may find the last room, and then make one more that has none.
            assert settled(lambda: made[0]) <= MOST_WAITING_ITEMS + 2 * WORKERS
            broker.go_on.set()


def test_put_many_reads_no_further_than_it_can_send(domain: str, broker: Behind) -> None:
    read = [0]

    def values() -> Iterator[int]:
        for number in range(1_000_000):
            read[0] += 1
            if read[0] == MOST_WAITING_ITEMS:
                release.start()
            yield number

    def fail() -> None:
        assert settled(lambda: read[0]) <= MOST_WAITING_ITEMS + 1
        broker.slow = ""
        broker.go_on.set()
        broker.send = down  # type: ignore[assignment, method-assign]

    def down(*_: Any) -> list[Answer]:
        raise BrokerUnavailableError("down")

    release = threading.Thread(target=fail, daemon=True)
    with piped(domain, {"broker": broker}, {"name": "take"}) as client:
        client.create_queues()
        broker.slow = client.queue_names[0]
        with pytest.raises(PutError):
            client.put_many(values(), timeout=0.5)
    assert read[0] <= 2 * MOST_WAITING_ITEMS


@pytest.mark.parametrize("last", [True, False], ids=["at the end", "with a next task"])
def test_slow_reader_of_results_is_waited_for(domain: str, broker: Behind, last: bool) -> None:
    seen = Seen()

    def take(value: int) -> int:
        seen.take(value)
        return value

    tasks: list[Any] = [{"method": take, "workers": WORKERS}, *([] if last else [{"name": "after"}])]
    with piped(domain, {"broker": broker}, *tasks, stop_timeout=0.1) as client:
        client.put_many(range(3000))
        with client.run("take", iterate=True) as results:
            next(results)
            seen.wait(MOST_RESULTS)
            on_their_way = 0 if last else MOST_WAITING_ITEMS
            assert settled(lambda: len(results._stream._results)) <= MOST_RESULTS + 2 * WORKERS + on_their_way


# Threads


def test_every_thread_of_a_run_says_what_it_does_and_for_whom(domain: str, tmp_path: Any) -> None:
    before = set(threading.enumerate())
    begun, gate = threading.Semaphore(0), threading.Event()

    def feed() -> int:
        return 1

    def split(value: int) -> Iterator[int]:
        yield value

    def take(value: int) -> None:
        begun.release()
        passed(gate)

    tasks: list[Any] = [
        {"method": feed, "interval": 0.01},
        {"method": split, "priorities": 2},
        {"method": take},
    ]
    names: set[str] = set()
    client = TaskClient(domain, broker=f"sqlite:///{tmp_path}/pipe.db").register_tasks(tasks)
    with client, client.start():
        assert begun.acquire(timeout=PATIENCE)
        names |= {thread.name for thread in set(threading.enumerate()) - before}
        gate.set()
    doing = {"run", "control", "worker", "source", "crew", "exchange"}
    what = f"({'|'.join(doing)}) {re.escape(domain)}"
    of_run = names - {"sqspipes log"}
    assert [name for name in of_run if not re.match(f"sqspipes {what}", name)] == []
    assert {name.split()[1] for name in of_run} == doing
    assert f"sqspipes worker {domain} take 1" in names


@pytest.mark.parametrize("kind", ["def", "async def", "yield", "batch", "fails once"])
def test_run_that_is_idle_keeps_nothing_of_its_last_messages(kind: str, domain: str) -> None:
    seen, failed = Seen(), set[int]()
    together = threading.Barrier(8)

    def plain(value: list[Any]) -> int:
        together.wait(PATIENCE)  # so that each worker has one
        return int(value[1])

    async def later(value: list[Any]) -> int:
        return int(value[1])

    def each(value: list[Any]) -> Iterator[int]:
        yield plain(value)

    def once(value: list[Any]) -> int:
        if value[1] not in failed:
            failed.add(value[1])
            raise ValueError
        return int(value[1])

    methods: dict[str, Any] = {"def": plain, "async def": later, "yield": each, "fails once": once}
    work = {"method": methods.get(kind), "name": "work", "workers": 8}
    if kind == "batch":
        work = {
            **work,
            "method": lambda values: [value[1] for value in values],
            "batch": 3,
            "batch_wait": 0.0,
        }

    def kept() -> list[Any]:
        gc.collect()
        return [found for found in gc.get_objects() if type(found) is list and found[:1] == [domain]]

    with piped(domain, {"broker": "memory://"}, work, seen.take) as client, client.start() as run:
        client.put_many([domain, number] for number in range(16))
        seen.wait(16)
        until(
            lambda: (
                client.status().levels[0].in_flight == 0 and run.summary.done >= 32 - 16 * (kind == "batch")
            )
        )
        until(lambda: not kept())
