"""Stopping: phases one after the other, their times, a second signal, and draining before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes.brokers.base import Depth
from sqspipes.engine.draining import Draining
from sqspipes.engine.stopping import Phase, Stopping, StopState
from sqspipes.errors import BrokerUnavailableError
from tests.unit.engine_parts import Engine


class Steps:
    """Phases that are over when the test says so."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.begun: list[str] = []
        self.over: set[str] = set()
        self.state = StopState()
        phases = [
            Phase(name, lambda name=name: self.begun.append(name), lambda name=name: name in self.over, **options)  # type: ignore[misc]
            for name in names
        ]  # fmt: skip
        self.stopping = Stopping(phases, self.state)


def test_phases_come_one_after_the_other_with_a_turn_between() -> None:
    steps = Steps("one", "two")
    steps.over |= {"one", "two"}
    assert [steps.stopping.step(0.0) for _ in range(3)] == [0.0] * 3
    assert steps.begun == ["one", "two"]
    assert steps.stopping.is_over
    assert steps.stopping.left_undone == []


def test_phase_that_takes_too_long_is_left_undone() -> None:
    steps = Steps("one", "two", seconds=5.0)
    steps.stopping.step(100.0)
    assert steps.stopping.step(101.0) == pytest.approx(4.0)
    assert steps.begun == ["one"]
    steps.stopping.step(105.0)
    assert (steps.begun, steps.stopping.left_undone) == (["one", "two"], ["one"])


def test_phase_whose_end_is_not_needed_leaves_nothing_undone() -> None:
    steps = Steps("one", seconds=5.0, is_needed=False)
    steps.stopping.step(100.0)
    steps.stopping.step(105.0)
    assert steps.stopping.is_over
    assert steps.stopping.left_undone == []


def test_phase_that_cannot_say_whether_it_is_over_is_left_undone() -> None:
    def fail() -> bool:
        raise ValueError("no")

    begun: list[str] = []
    phases = [
        Phase("one", lambda: begun.append("one"), fail, math.inf),
        Phase("two", lambda: begun.append("two"), lambda: True),
    ]
    stopping = Stopping(phases, StopState())
    stopping.step(100.0)
    with pytest.raises(ValueError, match="no"):
        stopping.step(100.1)
    assert (begun, stopping.left_undone) == (["one", "two"], ["one"])
    stopping.step(100.2)
    assert stopping.is_over


def test_second_signal_shortens_this_phase_and_those_after_it() -> None:
    steps = Steps("one", "two", seconds=50.0, hurried_seconds=0.5)
    steps.stopping.step(100.0)
    steps.state.is_hurried = True
    assert steps.stopping.step(101.0) == pytest.approx(0.5)
    steps.stopping.step(101.5)
    assert steps.begun == ["one", "two"]
    assert steps.stopping.step(101.6) == pytest.approx(0.4)
    steps.stopping.step(102.0)
    assert steps.stopping.is_over


def test_phase_that_nobody_tells_of_is_looked_at() -> None:
    steps = Steps("one", seconds=math.inf, look_seconds=1.0)
    steps.stopping.step(100.0)
    assert steps.stopping.step(100.0) == 1.0


def test_phase_whose_begin_fails_is_waited_for_all_the_same() -> None:
    def fail() -> None:
        raise ValueError("no")

    over: list[str] = []
    two = Phase("two", lambda: over.append("two"), lambda: True)
    stopping = Stopping([Phase("one", fail, lambda: True), two], StopState())
    with pytest.raises(ValueError, match="no"):
        stopping.step(0.0)
    while not stopping.is_over:
        stopping.step(0.0)
    assert over == ["two"]


# Draining


class Pipe:
    """A run of two queues that drains."""

    def __init__(self, engine: Engine, seconds: float | None) -> None:
        self.engine = engine
        self.done = 0
        self.is_idle = True
        self.draining = Draining(
            engine.requests, engine.limits, ["one", "two"], seconds, lambda: self.done, lambda: self.is_idle
        )

    def look(self, *depths: int | Exception) -> None:
        """Look when it is time, and answer the counts that are asked for."""
        self.engine.turn(max(0.0, self.draining.look() - self.engine.clock.now))
        self.draining.look()
        for depth in depths:
            self.engine.answer(depth if isinstance(depth, Exception) else Depth(depth, 0))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.loop.close()


def test_queues_seen_empty_twice_are_drained(engine: Engine) -> None:
    pipe = Pipe(engine, 60.0)
    pipe.look(0, 0)
    assert pipe.draining.has_seen_empty
    assert not pipe.draining.is_drained
    began = engine.clock.now
    pipe.look(0, 0)
    assert pipe.draining.is_drained
    assert engine.clock.now - began >= 60.0


def test_two_looks_follow_each_other_where_counts_are_exact(engine: Engine) -> None:
    pipe = Pipe(engine, 0.0)
    pipe.look(0, 0, 0, 0)
    assert pipe.draining.is_drained


@pytest.mark.parametrize("between", ["progress", "message", "outage", "work"])
def test_what_happens_between_the_looks_makes_them_begin_anew(engine: Engine, between: str) -> None:
    pipe = Pipe(engine, 60.0)
    pipe.look(0, 0)
    if between == "progress":
        pipe.done += 1
        pipe.look(0, 0)
        assert pipe.draining.has_seen_empty  # anew
    elif between == "message":
        pipe.look(0, 1)
        assert not pipe.draining.has_seen_empty
    elif between == "work":
        pipe.is_idle = False
        pipe.look()
        assert not pipe.draining.has_seen_empty
    else:
        pipe.look(BrokerUnavailableError("away"))
        engine.pass_time(1.0)
        engine.answer(Depth(0, 0))
        assert not pipe.draining.has_seen_empty
    assert not pipe.draining.is_drained


def test_progress_during_the_last_look_counts(engine: Engine) -> None:
    pipe = Pipe(engine, 60.0)
    pipe.look(0, 0)
    pipe.look(0)
    pipe.done += 1
    engine.answer(Depth(0, 0))
    assert not pipe.draining.is_drained
