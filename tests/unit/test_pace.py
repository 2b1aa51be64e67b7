"""Pace: about a second's work is held, and a task whose calls all fail takes in one message at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.runner.pace import (
    FAILURES_THAT_SLOW,
    FIRST_LOOK_AHEAD,
    MOST_LOOK_AHEAD,
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
