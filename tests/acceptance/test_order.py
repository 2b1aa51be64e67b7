"""Order by key, with many workers, and with calls that fail."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import pytest

from sqspipes import TaskClient

GROUPS, NUMBERS, SECONDS = 20, 50, 0.01

#: Calls of each task that have to be under way at once, with eight workers.
TOGETHER = 6

#: Seconds that they wait for one another.
PATIENCE = 30.0


class Task:
    """A task of 10 ms, one call in ten of which fails the first time; its first calls wait for one another."""

    def __init__(self, name: str, together: int) -> None:
        self.__name__ = name
        self._failed: set[tuple[int, int]] = set()
        self._lock, self._pause = threading.Lock(), threading.Event()
        self._meeting = threading.Barrier(together)
        self._to_come = together
        self.met = 0  #: calls that were under way together

    def __call__(self, value: list[int]) -> list[int]:
        group, number = value
        with self._lock:
            meets = self._to_come > 0
            self._to_come -= meets
        if meets:
            self._meeting.wait(PATIENCE)
            with self._lock:
                self.met += 1
        self._pause.wait(SECONDS)
        with self._lock:
            fails = (group * NUMBERS + number) % 10 == 3 and (group, number) not in self._failed
            self._failed.add((group, number))
        if fails:
            raise RuntimeError("the first time")
        return value


def results_of(
    domain: str, arguments: dict[str, Any], tasks: list[Task], workers: int
) -> dict[int, list[int]]:
    """Run all numbers through the tasks; return what came out, per group."""
    found: dict[int, list[int]] = defaultdict(list)
    dicts = [{"method": task, "workers": workers} for task in tasks]
    with TaskClient(domain, **arguments, backoff=0.05).register_tasks(dicts) as client:
        client.put_many(
            ([group, number] for number in range(NUMBERS) for group in range(GROUPS)),
            group=lambda value: value[0],
        )
        with client.run(iterate=True) as results:
            for count, (group, number) in enumerate(results, 1):
                found[group].append(number)
                if count == GROUPS * NUMBERS:
                    return found
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker_name", ["memory", "sqlite", "sqs"])
@pytest.mark.parametrize(("workers", "together"), [(1, 1), (8, TOGETHER)], ids=["one worker", "eight"])
def test_groups_stay_in_order_and_run_side_by_side(
    domain: str, broker_name: str, broker_arguments: Any, workers: int, together: int
) -> None:
    tasks = [Task(name, together) for name in ("one", "two", "three")]
    found = results_of(domain, broker_arguments(broker_name), tasks, workers)
    assert found == {group: list(range(NUMBERS)) for group in range(GROUPS)}
    assert [task.met for task in tasks] == [together] * 3
