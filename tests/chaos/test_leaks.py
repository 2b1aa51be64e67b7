"""Scenario 6: start and stop again and again, and nothing is left: no thread, no socket, no file, no memory."""

from __future__ import annotations

import gc
import operator
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from sqspipes import TaskClient
from tests.chaos.conftest import Chaos
from tests.chaos.ledger import wait_for

#: Rounds after which all that is made once has been made.
WARM = 3

#: Bytes by which memory may grow over the second half: the allocator's own, as objects are counted as well.
MOST_GROWN = 8_000_000

#: Objects that a round may leave: botocore remembers some of each of its last hundred clients.
MOST_OBJECTS = 3


@dataclass(frozen=True)
class Holdings:
    """What a process holds."""

    threads: tuple[str, ...]
    files: int
    sockets: int
    descriptors: int
    objects: int
    memory: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        process = psutil.Process()
        return cls(
            threads=tuple(sorted(t.name for t in threading.enumerate() if t.name.startswith("sqspipes"))),
            files=len(process.open_files()),
            sockets=len(process.net_connections("all")),
            descriptors=process.num_fds(),
            objects=len(gc.get_objects()),
            memory=process.memory_info().rss,
        )

    def within(self, before: Holdings) -> bool:
        """Whether this is no more than before; it may be less, once a server has dropped old connections."""
        now, then = ((each.files, each.sockets, each.descriptors) for each in (self, before))
        return not self.threads and all(map(operator.le, now, then))


def one_round(domain: str, arguments: dict[str, Any]) -> None:
    """Make a client and its queues, start it, stop it under load, close it."""

    def same(value: int) -> int:
        return value

    tasks = [{"method": same, "name": name, "workers": 3} for name in ("one", "two", "three")]
    with TaskClient(domain, **arguments).register_tasks(tasks) as client:
        client.put_many(range(20))
        with client.start() as run:
            wait_for(lambda: run.summary.done >= 20, 30, lambda: str(run.summary))
        client.delete()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["memory", "sqlite", "redis", "sqs"])
def test_starting_and_stopping_leaves_nothing(
    chaos: Chaos, domain: str, broker_name: str, broker_arguments: Callable[[str], dict[str, Any]]
) -> None:
    arguments, rounds = broker_arguments(broker_name), 50 if chaos.full else 10
    # What a cut poll takes in its last seconds stays hidden: each round has queues of its own.
    for number in range(WARM):
        one_round(f"{domain}_warm{number}", arguments)
    wait_for(lambda: not Holdings.now().threads, 10, lambda: str(Holdings.now()))
    before, begun = Holdings.now(), time.monotonic()
    for number in range(rounds):
        if number == rounds // 2:
            half = Holdings.now()
        one_round(f"{domain}_{number}", arguments)
    seconds = time.monotonic() - begun
    wait_for(lambda: Holdings.now().within(before), 10, lambda: f"{before} became {Holdings.now()}")
    after = Holdings.now()
    objects, grown = after.objects - before.objects, after.memory - half.memory
    chaos.report(
        "6 stop: start and stop", broker_name, messages=20 * rounds, faults=rounds, seconds=round(seconds, 1),
        kilobytes_of_second_half=grown // 1000, objects=objects, descriptors=after.descriptors,
    )  # fmt: skip
    assert objects < MOST_OBJECTS * rounds + 10, f"{objects} objects more after {rounds} rounds"
    assert grown < MOST_GROWN, f"{grown} bytes more after the second half of {rounds} rounds"
