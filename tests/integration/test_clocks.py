"""Time: a wall clock that is set anew, or frozen by a test, moves no lease, no backoff and no wait of a run."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from freezegun import freeze_time

from sqspipes import Retry, TaskClient
from sqspipes.brokers.base import Broker
from tests.integration.outages import Between
from tests.integration.support import QUICK, Seen, drain_of, piped, until

Jump = Callable[[float], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Set the wall clock so many seconds ahead of what it is."""
    real = time.time

    def jump(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return jump


@pytest.mark.parametrize(("ahead", "then"), [(3_600.0, 0.0), (0.0, 3_600.0), (0.0, -3_600.0)])
def test_backoff_does_not_heed_the_wall_clock(
    domain: str, pipe_broker: dict[str, Any], jump: Jump, ahead: float, then: float
) -> None:
    seen = Seen()

    def work(value: str) -> None:
        seen.take(value)
        if value == "jumps":
            jump(then)  # while the other one waits for its second call
        elif seen.values.count("fails") == 1:
            raise Retry(0.5)

    with piped(domain, pipe_broker, work) as client, client.start():
        jump(ahead)
        client.put("fails")
        seen.wait(1)
        client.put("jumps")
        assert sorted(seen.wait(3)) == ["fails", "fails", "jumps"]
    first, second = (seen.times[place] for place, value in enumerate(seen.values) if value == "fails")
    assert second - first >= 0.5


@pytest.mark.parametrize(("ahead", "then"), [(3_600.0, 0.0), (0.0, -3_600.0)])
def test_lease_is_extended_in_time_whatever_the_wall_clock_says(
    domain: str, broker: Broker, jump: Jump, ahead: float, then: float
) -> None:
    extended, in_time = threading.Event(), []
    between = Between(broker)

    def work(value: str) -> None:
        if value == "long":
            jump(then)
            in_time.append(extended.wait(QUICK["lease"]))  # later it would come again, and then be extended

    def heard(name: str, queue: str) -> bool:
        if name == "extend":
            extended.set()
        return False

    between.refuses = heard
    with piped(domain, {"broker": between}, work) as client, client.start() as run:
        jump(ahead)
        client.put("short")  # the receive that brings the next one begins after the jump
        until(lambda: run.summary.done == 1)
        client.put("long")
        until(lambda: run.summary.done == 2)
    assert in_time == [True]


@pytest.mark.parametrize("ticks", [True, False])
def test_run_under_frozen_time_ends_as_it_does_without(
    domain: str, pipe_broker: dict[str, Any], ticks: bool
) -> None:
    failed = itertools.count()

    def first(value: int) -> int:
        if value == 3 and not next(failed):
            raise Retry(0.1)
        return value

    async def second(value: int) -> None:
        pass

    with freeze_time("2026-01-02", tick=ticks), piped(domain, pipe_broker, first, second) as client:
        client.put_many(range(5), timeout=10.0)
        summary = client.run(drain=drain_of(pipe_broker))
    assert (summary.done, summary.failed) == (10, 1)


def test_client_that_is_made_before_time_is_frozen_waits_as_before(domain: str) -> None:
    seen = Seen()
    with TaskClient(domain, broker="memory://", output="out", linger=0.05) as client:
        client.register_tasks([{"method": seen.take, "name": "take", "rate": "50/s"}])
        with client.start(), freeze_time("2026-01-02"):
            client.put_many(range(10))
            assert len(seen.wait(10)) == 10
            assert client.get_result(timeout=0.1) is None
