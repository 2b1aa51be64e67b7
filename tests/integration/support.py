"""What integration tests are made of: a client that is quick to fail, and a task that tells what it saw."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqspipes import Summary, TaskClient

ROOT = Path(__file__).parents[2]

#: Seconds after which a test that waits for something fails.
PATIENCE = 15.0

#: The shortest lease there is, and next to no backoff.
QUICK: dict[str, Any] = {"lease": 5.0, "backoff": 0.05}


def piped(domain: str, broker: Mapping[str, Any], *tasks: Any, **options: Any) -> TaskClient:
    """Return a client with tasks; ``broker`` has the arguments that lead to its broker."""
    return TaskClient(domain, **{**QUICK, **broker, **options}).register_tasks(list(tasks))


def drain_of(broker: Mapping[str, Any]) -> bool | float:
    """Return what ``drain`` should be: SQS's own 60 seconds are too long for a test."""
    return 1.0 if broker["broker"] == "sqs://" else True


class Seen:
    """Remembers what it is given, in order; ``take`` is a task, ``wait`` waits for a number of values."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.times: list[float] = []
        self._changed = threading.Condition()

    def take(self, value: Any) -> None:
        """Remember a value."""
        with self._changed:
            self.values.append(value)
            self.times.append(time.monotonic())
            self._changed.notify_all()

    def wait(self, count: int, timeout: float = PATIENCE) -> list[Any]:
        """Return the values once there are ``count``; fail if there are fewer after ``timeout`` seconds."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.values) >= count, timeout)
            assert done, f"{len(self.values)} of {count} values came: {self.values[:20]}"
            return list(self.values)


def passed(event: threading.Event) -> None:
    """Wait for an event; fail if it does not come."""
    assert event.wait(PATIENCE), "the event did not come"


def until(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Ask again and again, without haste, until something that tells nobody has become true."""
    resting, deadline = threading.Event(), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        resting.wait(0.05)


def run_until(client: TaskClient, task: str | None = None, **counts: int) -> Summary:
    """Run until the summary has these counts, and stop; quicker than a drain where counts are estimates."""
    with client.start(task) as run:
        until(lambda: all(getattr(run.summary, count) >= number for count, number in counts.items()))
    return run.summary


def waiting(client: TaskClient, task: str) -> int:
    """Return how many messages wait in a task's queues."""
    return sum(level.waiting for level in client.status().levels if level.task == task)


def levels(client: TaskClient, task: str) -> list[int]:
    """Return how many messages each level of a task holds, waiting or in flight."""
    return [level.waiting + level.in_flight for level in client.status().levels if level.task == task]


def in_flight(client: TaskClient, task: str) -> int:
    """Return how many messages of a task are in flight."""
    return sum(level.in_flight for level in client.status().levels if level.task == task)


def dead(client: TaskClient, task: str) -> int:
    """Return how many dead letters a task has."""
    return next(level.dead for level in client.status().levels if level.task == task)


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of a child process that finds the package and the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}
