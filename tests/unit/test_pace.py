"""Pace: about a second's work is held, and a task whose calls all fail takes in one message at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.engine.pace import (
    FAILURES_THAT_SLOW,
    FIRST_LOOK_AHEAD,
    MOST_LOOK_AHEAD,
    Arrivals,
    Pace,
)


def after(workers: int, *seconds: float, ok: bool = True) -> Pace:
    """Return a pace that has seen calls of so many seconds."""
    pace = Pace(workers)
    for one in seconds:
        pace.called(one, ok=ok)
    return pace


def test_first_look_ahead_is_what_one_receive_brings() -> None:
    assert Pace(3).capacity == 3 + FIRST_LOOK_AHEAD


def test_capacity_is_the_workers_and_a_seconds_work() -> None:
    assert after(2, 0.1).capacity == 2 + 20


def test_slow_calls_are_not_looked_ahead_of() -> None:
    assert after(4, 60.0).capacity == 4


def test_fast_calls_are_looked_ahead_of_up_to_a_limit() -> None:
    assert after(1, 0.0).capacity == 1 + MOST_LOOK_AHEAD


def test_capacity_follows_the_calls() -> None:
    pace = after(1, 10.0)
    for _ in range(200):
        pace.called(0.01, ok=True)
    assert pace.capacity == pytest.approx(1 + 100, abs=2)


@given(st.integers(1, 1_000), st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=50))
def test_there_is_always_room_for_the_workers(workers: int, calls: list[tuple[float, bool]]) -> None:
    pace = Pace(workers)
    for seconds, ok in calls:
        pace.called(seconds, ok=ok)
        assert workers <= pace.capacity <= workers + MOST_LOOK_AHEAD


@pytest.mark.parametrize(("workers", "failures"), [(1, FAILURES_THAT_SLOW), (10, 20), (11, 22), (100, 200)])
def test_task_probes_when_its_last_calls_all_failed(workers: int, failures: int) -> None:
    pace = after(workers, *[1.0] * (failures - 1), ok=False)
    assert not pace.probing
    pace.called(1.0, ok=False)
    assert pace.probing


def test_one_success_ends_the_probing() -> None:
    pace = after(1, *[1.0] * 50, ok=False)
    pace.called(1.0, ok=True)
    assert not pace.probing
    pace.called(1.0, ok=False)
    assert not pace.probing


def arrivals(rate: float, seconds: float, pause: float = 0.01) -> tuple[Arrivals, float]:
    """Return what has seen so many messages a second, for so many seconds, and the time."""
    seen, now = Arrivals(100.0), 100.0
    while now < 100.0 + seconds:
        now += pause
        seen.note(round(rate * (now - 100.0)) - round(rate * (now - pause - 100.0)), now)
    return seen, now


@pytest.mark.parametrize("rate", [10, 1_000])
def test_rate_is_what_came_in_the_last_seconds(rate: float) -> None:
    seen, now = arrivals(rate, 5)
    assert seen.rate(now) == pytest.approx(rate, rel=0.1)
    assert seen.rate(now + 100) < rate / 50


def test_queue_that_brings_little_is_not_waited_for() -> None:
    seen, now = arrivals(10, 5)
    assert seen.pause(0.05, 10, now) == 0.0


def test_queue_that_brings_much_is_waited_for_until_a_request_may_be_full() -> None:
    seen, now = arrivals(1_000, 5)
    assert seen.pause(0.05, 10, now) == pytest.approx(0.01, rel=0.1)


def test_queue_in_between_is_waited_for_as_long_as_it_may_be() -> None:
    seen, now = arrivals(100, 5)
    assert seen.pause(0.05, 10, now) == 0.05


def test_queue_that_brings_nothing_more_is_not_waited_for() -> None:
    seen, now = arrivals(1_000, 5)
    seen.note(0, now + 100)
    assert seen.pause(0.05, 10, now + 100) == 0.0


def test_new_queue_is_not_waited_for() -> None:
    assert Arrivals(0.0).pause(10.0, 10, 0.0) == 0.0
