"""A rate: at most so many calls of a task in a time, in each process."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from sqspipes import OptionError, SignatureError, TaskClient
from tests.integration.support import Seen, piped, run_until, waiting

MEMORY = {"broker": "memory://"}


def test_calls_begin_no_sooner_than_the_rate_allows(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(
        domain, pipe_broker, {"method": seen.take, "name": "take", "rate": "20/s", "workers": 8}
    ) as client:
        client.put_many(range(20))
        with client.start():
            seen.wait(20)
    # Each call takes its time within its worker; the first of two may be late, the second not early.
    assert seen.times[-1] - seen.times[0] >= 19 / 20 - 0.05
    assert sorted(later - earlier for earlier, later in pairwise(seen.times))[10] >= 0.04


def test_process_takes_in_no_more_than_its_rate_lets_it_call(domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, {"method": seen.take, "name": "take", "rate": "2/s", "workers": 8}) as client:
        client.put_many(range(50))
        with client.start():
            seen.wait(2)
            assert waiting(client, "take") >= 40


def test_stop_does_not_wait_for_the_rate(domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, {"method": seen.take, "name": "take", "rate": "1/d"}) as client:
        client.put_many(range(3))
        with client.start():
            seen.wait(1)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert waiting(client, "take") == 2


def test_task_without_a_rate_is_not_held_up_by_one_that_has_it(domain: str) -> None:
    seen = Seen()

    def slow(value: int) -> int:
        return value

    with piped(domain, MEMORY, {"method": slow, "rate": "1/d"}, seen.take) as client:
        client.put_many(range(3))
        client.put_many(range(100, 150), task="take")
        run_until(client, done=52)
    assert len(seen.values) == 51


@pytest.mark.parametrize("rate", ["", "100", "0/m", "-1/s", "1.5/s", "10/y", "/s", 100, "\u0661/s"])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(
        OptionError, match=r"task 'print': rate is .*: allowed is a number of calls per s, m, h or d"
    ):
        TaskClient("app", broker="memory://").register_tasks([{"method": print, "rate": rate}])


def test_source_has_an_interval_and_no_rate() -> None:
    def source() -> int:
        return 1

    client = TaskClient("app", broker="memory://").register_tasks([{"method": source, "rate": "1/s"}])
    with pytest.raises(
        SignatureError, match="task 'source' is a source and has a rate: allowed is an interval"
    ):
        client.run()
