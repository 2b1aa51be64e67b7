"""The same test of the pipe, twenty times in a row."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import pytest

from sqspipes import EmptyTaskOutput, Output, TaskClient
from tests.acceptance.support import drain_of


def spread(number: int) -> Any:
    """Hand on one, none or three."""
    if number % 10 == 0:
        return EmptyTaskOutput
    return (Output([number, part], group=number % 4) for part in range(3 if number % 10 == 1 else 1))


class Flaky:
    """Fails at every seventh value, once."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, pair: list[int]) -> list[int]:
        with self._lock:
            fails = pair[0] % 7 == 0 and str(pair) not in self._failed
            self._failed.add(str(pair))
        if fails:
            raise OSError("once")
        return pair


@pytest.mark.parametrize("time", range(20))
def test_pipe_gives_the_same_every_time(domain: str, pipe_broker: dict[str, Any], time: int) -> None:
    client = TaskClient(domain, **pipe_broker, backoff=0.02, lease=5.0)
    client.register_tasks(
        [
            {"method": spread, "workers": 4, "priorities": 2},
            {"method": Flaky(), "name": "flaky", "workers": 4},
            {"method": tuple, "name": "collect", "workers": 4},
        ]
    )
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    with client:
        assert (
            client.put_many(range(40), priority=lambda number: number % 2, group=lambda number: number % 4)
            == 40
        )
        with client.run(iterate=True, drain=drain_of(pipe_broker)) as results:
            for number, part in results:
                found[number % 4].append((number, part))
    expected = [(n, p) for n in range(40) if n % 10 for p in range(3 if n % 10 == 1 else 1)]
    for group in range(4):
        ours = [pair for pair in expected if pair[0] % 4 == group]
        assert sorted(found[group]) == ours
        for level in range(2):
            # On the same way: with the same group and priority.
            numbers = [number for number, _ in found[group] if number % 2 == level]
            assert numbers == sorted(numbers)
