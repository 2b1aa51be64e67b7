"""Order by key, with many workers, and with calls that fail."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes import TaskClient

GROUPS, NUMBERS, SECONDS = 20, 50, 0.01


def failing_at_first(name: str) -> Callable[[list[int]], list[int]]:
    """A task of 10 ms, one call in ten of which fails the first time."""
    failed: set[tuple[int, int]] = set()
    lock, pause = threading.Lock(), threading.Event()

    def task(value: list[int]) -> list[int]:
        group, number = value
        pause.wait(SECONDS)
        with lock:
            fails = (group * NUMBERS + number) % 10 == 3 and (group, number) not in failed
            failed.add((group, number))
        if fails:
            raise RuntimeError("the first time")
        return value

    task.__name__ = name
    return task


def pipe(domain: str, arguments: dict[str, Any], workers: int) -> tuple[dict[int, list[int]], float]:
    """Run all numbers through three tasks; return what came out, per group, and the seconds it took."""
    tasks = [{"method": failing_at_first(name), "workers": workers} for name in ("one", "two", "three")]
    found: dict[int, list[int]] = defaultdict(list)
    with TaskClient(domain, **arguments, backoff=0.05).register_tasks(tasks) as client:
        client.put_many(
            ([group, number] for number in range(NUMBERS) for group in range(GROUPS)),
            group=lambda value: value[0],
        )
        begun = time.monotonic()
        with client.run(iterate=True) as results:
            for count, (group, number) in enumerate(results, 1):
                found[group].append(number)
                if count == GROUPS * NUMBERS:
                    break
        return found, time.monotonic() - begun


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker_name", ["memory", "sqlite", pytest.param("sqs", marks=pytest.mark.alone)])
def test_groups_stay_in_order_and_run_side_by_side(
    domain: str, broker_name: str, broker_arguments: Any
) -> None:
    arguments, expected = (
        broker_arguments(broker_name),
        {group: list(range(NUMBERS)) for group in range(GROUPS)},
    )
    found, seconds_of_one = pipe(domain + "_one", arguments, workers=1)
    assert found == expected
    # The best of three: what else the machine does can only add to it.
    for attempt in range(3):
        found, seconds = pipe(f"{domain}_{attempt}", arguments, workers=8)
        assert found == expected
        if seconds < seconds_of_one / 3:
            return
    pytest.fail(f"8 workers took {seconds:.1f} s, one took {seconds_of_one:.1f} s")
