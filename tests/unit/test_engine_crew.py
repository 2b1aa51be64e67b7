"""The crew: one leader at a time, each call ends once, no wake-up is lost; by chance, and with faults planted."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes.engine.crew import GLANCE_SECONDS, Crew, Leadership, LostBatonError
from sqspipes.engine.crew_parts import CrewLock
from tests.unit.crew_model import Engine, Machine, ModelError

#: How long a call lasts that lasts.
LONG = 200 * GLANCE_SECONDS


def play(seed: int, make: Callable[..., Crew] = Crew, engine: type[Engine] = Engine) -> None:
    """Play one schedule; raises ``ModelError`` for what must not be."""
    chance = random.Random(seed)
    seconds = [LONG if chance.random() < 0.3 else 0.0 for _ in range(chance.randrange(1, 7))]
    stops_after = chance.randrange(1, len(seconds) + 1) if chance.random() < 0.2 else None
    machine = Machine(seed)
    played = engine(machine, make, seconds, stops_after)
    played.crew.start()
    machine.run()
    check(played, seconds, stops_after)


def check(played: Engine, seconds: list[float], stops_after: int | None) -> None:
    """Check what must hold at the end of a schedule."""
    ended = played.ended + played.inbox
    if len(ended) != len(set(ended)):
        raise ModelError(f"a call ended twice: {ended}")
    if stops_after is None and sorted(ended) != list(range(len(seconds))):
        raise ModelError(f"calls are missing: {ended}")
    lasting = sum(each > 0 for each in seconds[: played.begun])
    if played.crew.takeovers < lasting - (stops_after is not None):
        raise ModelError(f"{lasting} calls lasted, and {played.crew.takeovers} times another thread led")
    if stops_after is None and played.machine.time > 3 * LONG:
        raise ModelError("calls that last were waited for one after the other")


@pytest.mark.once
def test_no_schedule_has_two_leaders_loses_a_call_or_a_wake_up(pytestconfig: pytest.Config) -> None:
    for seed in range(100_000 if pytestconfig.getoption("--full") else 1_000):
        try:
            play(seed)
        except BaseException as error:
            raise AssertionError(f"schedule {seed}: {error}") from error


class OneBaton(Crew):
    """Fault: one lock for all leaderships. Its former leader takes it while the new one makes a call."""

    def _take_over(self) -> None:
        self._watcher = None
        old, self._leadership = self._leadership, Leadership(self._leadership.baton)
        self.takeovers += 1
        del old
        self._run_as_leader()


class BookedLate(Crew):
    """Fault: the new leadership is known only after the new leader has begun."""

    def _take_over(self) -> None:
        leadership = Leadership(self._taken_lock())
        self._watcher = None
        self.takeovers += 1
        leadership.thread = self._parts.thread()
        self._lead_late(leadership)

    def _lead_late(self, leadership: Leadership) -> None:
        lead, self._lead = self._lead, lambda: None
        self._run_as_leader()
        self._lead, self._leadership = lead, leadership
        lead()


class LostWakeUp(Crew):
    """Fault: the watcher sleeps without another look at what began meanwhile."""

    def _sleep(self, bed: CrewLock, leadership: Leadership) -> None:
        for _ in range(10):  # so that a call is likely to begin here
            self._parts.switch()  # type: ignore[attr-defined]
        if self.is_closed:
            return
        self._watcher_sleeps = True
        bed.acquire()
        self._watcher_sleeps = False


class EndsTwice(Engine):
    """Fault: the former leader takes note of the end of its call, and leaves word of it too."""

    def _call(self) -> None:
        number = self.begun
        try:
            super()._call()
        except LostBatonError:
            self.ended.append(number)
            raise


@pytest.mark.once
@pytest.mark.parametrize("fault", [OneBaton, BookedLate, LostWakeUp, EndsTwice])
def test_planted_fault_is_found(fault: Any) -> None:
    options = {"engine": fault} if issubclass(fault, Engine) else {"make": fault}
    for seed in range(3_000):
        try:
            play(seed, **options)
        except BaseException:
            return
    pytest.fail("no schedule has found it")


# With real threads


def assert_all_end() -> None:
    """Wait for the threads of a crew that is closed."""
    for thread in threading.enumerate():
        if thread.name.startswith("test crew"):
            thread.join(10)
            assert not thread.is_alive()


def test_call_that_lasts_is_left_to_its_thread_and_another_one_leads() -> None:
    go_on, led = threading.Event(), threading.Event()
    names: list[str] = []
    lost: list[Any] = []

    def lead() -> None:
        names.append(threading.current_thread().name)
        if len(names) == 1:
            try:
                crew.call(lambda: go_on.wait(10))
            except LostBatonError as error:
                lost.append(error.args[0])
                raise
        led.set()
        crew.close()

    crew = Crew("test crew", lead, lost.append)
    crew.start()
    assert led.wait(10)
    assert crew.wait(10)
    go_on.set()
    assert names == ["test crew 1", "test crew 2"]
    assert_all_end()
    assert lost == [True]


def test_what_a_leader_raises_is_told_of() -> None:
    died: list[BaseException] = []
    told = threading.Event()

    def tell(error: BaseException) -> None:
        died.append(error)
        told.set()

    def lead() -> None:
        raise ValueError("no")

    crew = Crew("test crew", lead, tell)
    crew.start()
    assert told.wait(10)
    assert str(died[0]) == "no"
    crew.close()
    assert_all_end()
