"""ThreadExecutor: every call runs, as many at once as there are slots, in few threads when calls are short."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from sqspipes.messages.message import Delivery, Message
from sqspipes.runner import executor
from sqspipes.runner.executor import DONE, Call, Emission, Ended, Outcome, ThreadExecutor
from sqspipes.runner.held import Held, Origin
from sqspipes.runner.settler import Abandoned

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 10.0


def call(name: str) -> Call:
    delivery = Delivery("queue", name, "receipt", 1, "{}", name, 0.0)
    return Call((Held(delivery, Message(name, None), 0, 60.0, 0.0),))


class Bench:
    """An engine that notes what ended, and an executor of ``slots`` whose calls do ``work`` with their names."""

    def __init__(self, slots: int, work: Callable[[str], None]) -> None:
        self.changed = threading.Condition()
        self.ended: list[str] = []
        self.settled: list[int] = []  # how many calls were settled together, each time
        self.given_up: list[str] = []
        self.threads: set[int] = set()
        self.following: dict[str, Call] = {}
        self.deaths: list[BaseException] = []
        self._work = work
        self.executor = ThreadExecutor(
            "test", slots, self._perform, self, lambda _, error: self.deaths.append(error)
        )

    def _perform(self, call: Call) -> list[Outcome]:
        with self.changed:
            self.threads.add(threading.get_ident())
        self._work(call.messages[0].message.id)
        return [DONE]

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        raise NotImplementedError

    def flush(self, origin: Origin) -> None:
        raise NotImplementedError

    def done(self, *ended: Ended) -> Call | None:
        names = [call.messages[0].message.id for call, _ in ended]
        with self.changed:
            self.ended += names
            self.settled.append(len(names))
            self.changed.notify_all()
        return self.following.get(names[-1])

    def abandoned(self, call: Call) -> None:
        with self.changed:
            self.given_up.append(call.messages[0].message.id)
            self.changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.ended) + len(self.given_up) >= count, PATIENCE), (
                self.ended
            )
            return list(self.ended)


class Crowd:
    """Counts how many are in it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._lock = threading.Lock()
        self._now = 0

    def __enter__(self) -> int:
        with self._lock:
            self._now += 1
            self.sizes.append(self._now)
            return self._now

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


def nothing(_: str) -> None:
    """Return at once."""


def test_calls_that_wait_are_all_under_way_at_once() -> None:
    together = threading.Barrier(8)
    bench = Bench(8, lambda _: bool(together.wait(PATIENCE)))  # type: ignore[arg-type, return-value]
    bench.executor.start([call(str(number)) for number in range(8)])
    bench.wait_for(8)
    bench.executor.close()


def test_sleeping_threads_take_up_calls_again() -> None:
    together = threading.Barrier(4)
    bench = Bench(4, lambda _: bool(together.wait(PATIENCE)))  # type: ignore[arg-type, return-value]
    for round in range(1, 20):
        bench.executor.start([call(f"{round}-{number}") for number in range(3)])
        bench.executor.start([call(f"{round}-3")])
        bench.wait_for(4 * round)
    assert len(bench.threads) == 4
    bench.executor.close()


def test_short_calls_are_run_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "SHORT_SECONDS", PATIENCE)
    crowd = Crowd()

    def work(_: str) -> None:
        with crowd:
            time.sleep(0.001)

    bench = Bench(8, work)
    for number in range(200):
        bench.executor.start([call(str(number))])
    bench.wait_for(200)
    assert set(crowd.sizes) == {1}
    bench.executor.close()


def test_call_that_keeps_the_one_thread_does_not_keep_the_others() -> None:
    waiting, go = threading.Event(), threading.Event()

    def work(name: str) -> None:
        if name == "100":
            waiting.set()
            assert go.wait(PATIENCE)

    bench = Bench(8, work)
    bench.executor.start([call(str(number)) for number in range(200)])
    assert waiting.wait(PATIENCE)
    assert "100" not in bench.wait_for(199)
    go.set()
    bench.wait_for(200)
    bench.executor.close()


def test_short_calls_are_settled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "SHORT_SECONDS", PATIENCE)
    bench = Bench(8, nothing)
    names = [str(number) for number in range(5_000)]
    bench.executor.start([call(name) for name in names])
    assert bench.wait_for(5_000) == names
    assert max(bench.settled) > 10
    bench.executor.close()


def test_calls_that_take_long_together_are_settled_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "SHORT_SECONDS", 0.01)
    ended: list[str] = []

    class Clock:
        """A clock by which each call takes 5 ms, and nothing else takes any time."""

        @staticmethod
        def monotonic() -> float:
            return 0.005 * len(ended)

    monkeypatch.setattr(executor, "clocks", Clock)
    bench = Bench(8, ended.append)
    bench.executor.start([call(str(number)) for number in range(5_000)])
    bench.wait_for(5_000)
    assert 1 < max(bench.settled) < 5
    bench.executor.close()


def test_calls_after_long_ones_are_all_begun_without_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "SHORT_SECONDS", 0.001)
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    together = threading.Barrier(8)

    def work(name: str) -> None:
        if name == "long":
            time.sleep(0.1)
        else:
            together.wait(PATIENCE / 2)

    bench = Bench(8, work)
    bench.executor.start([call("long")])
    bench.wait_for(1)
    bench.executor.start([call(str(number)) for number in range(8)])
    bench.wait_for(9)
    assert not bench.deaths
    bench.executor.close()


def test_calls_that_only_company_makes_long_are_soon_run_by_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "SHORT_SECONDS", 0.01)
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "DOUBT_SECONDS", 0.3)
    crowd = Crowd()

    def work(name: str) -> None:
        with crowd as size:
            time.sleep(0.1 if int(name) < 8 or size > 1 else 0.0)

    bench = Bench(4, work)
    bench.executor.start([call("0")])
    bench.wait_for(1)
    bench.executor.start([call(str(number)) for number in range(1, 400)])
    bench.wait_for(400)
    assert max(crowd.sizes) > 1
    assert set(crowd.sizes[-100:]) == {1}
    bench.executor.close()


def test_calls_are_short_if_they_last_no_longer_than_glances_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", 0.02)
    crowd, looks = Crowd(), itertools.count()

    class Late:
        """A clock by which the second thread is late each time, and calls take 3 ms after the first ones."""

        @staticmethod
        def monotonic() -> float:
            if threading.current_thread().name.endswith("worker test 2"):
                return 0.1 * next(looks)
            return 0.003 * max(0, len(crowd.sizes) - 400)

    def work(_: str) -> None:
        with crowd:
            time.sleep(0.0005)

    monkeypatch.setattr(executor, "clocks", Late)
    bench = Bench(8, work)
    bench.executor.start([call(str(number)) for number in range(500)])
    bench.wait_for(500)
    assert sum(crowd.sizes[-100:]) < 150
    bench.executor.close()


def test_glance_that_is_an_hour_late_does_not_put_off_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, hours = threading.Event(), threading.Event(), itertools.count()

    def work(name: str) -> None:
        time.sleep(0.0002)
        if name == "200":
            begun.set()
            assert go.wait(PATIENCE)

    class Stopped:
        """The clock of a process that is stopped for an hour whenever its second thread looks at it."""

        @staticmethod
        def monotonic() -> float:
            stopped = threading.current_thread().name.endswith("worker test 2")
            return time.monotonic() + (3_600.0 * next(hours) if stopped else 0.0)

    monkeypatch.setattr(executor, "clocks", Stopped)
    bench = Bench(8, work)
    bench.executor.start([call(str(number)) for number in range(400)])
    assert begun.wait(PATIENCE)
    assert len(bench.wait_for(399)) == 399
    go.set()
    bench.wait_for(400)
    bench.executor.close()


def test_calls_that_are_long_alone_too_are_soon_run_by_all_threads_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "DOUBT_SECONDS", 0.2)
    crowd = Crowd()

    def work(_: str) -> None:
        with crowd:
            time.sleep(0.05)

    bench = Bench(32, work)
    bench.executor.start([call(str(number)) for number in range(1000)])
    bench.wait_for(1000)
    assert sum(crowd.sizes) / len(crowd.sizes) > 24
    bench.executor.close()


def test_close_leaves_no_call_behind_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "SHORT_SECONDS", PATIENCE)
    begun, go = threading.Event(), threading.Event()

    def work(name: str) -> None:
        if name == "waits":
            begun.set()
            assert go.wait(PATIENCE)

    bench = Bench(4, work)
    bench.executor.start([call("waits")])
    assert begun.wait(PATIENCE)
    bench.executor.start([call("a"), call("b"), call("c")])
    bench.executor.close()
    assert sorted(bench.wait_for(3)) == ["a", "b", "c"]
    go.set()
    bench.wait_for(4)


def test_close_leaves_nothing_unsettled_before_a_call_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "GLANCE_SECONDS", PATIENCE)
    monkeypatch.setattr(executor, "SHORT_SECONDS", PATIENCE)
    begun, go = threading.Event(), threading.Event()

    def work(name: str) -> None:
        if name == "2000":
            begun.set()
            assert go.wait(PATIENCE)

    bench = Bench(8, work)
    bench.executor.start([call(str(number)) for number in range(2_001)])
    assert begun.wait(PATIENCE)
    assert len(bench.ended) < 2_000
    bench.executor.close()
    assert len(bench.wait_for(2_000)) == 2_000
    go.set()
    bench.wait_for(2_001)


def test_call_that_follows_runs_in_the_same_thread() -> None:
    bench = Bench(4, nothing)
    names = [str(number) for number in range(50)]
    for first, second in pairwise(names):
        bench.following[first] = call(second)
    bench.executor.start([call("0")])
    assert bench.wait_for(50) == names
    assert len(bench.threads) == 1
    bench.executor.close()


def test_call_that_waits_for_a_thread_goes_before_one_that_follows() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(name: str) -> None:
        if name == "first":
            begun.set()
            assert go.wait(PATIENCE)

    bench = Bench(1, work)
    bench.following["first"] = call("following")
    bench.executor.start([call("first")])
    assert begun.wait(PATIENCE)
    bench.executor.start([call("waiting")])
    go.set()
    assert bench.wait_for(3) == ["first", "waiting", "following"]
    bench.executor.close()


def test_call_that_is_abandoned_is_told_and_its_thread_goes_on() -> None:
    def work(name: str) -> None:
        if name == "lost":
            raise Abandoned

    bench = Bench(1, work)
    bench.executor.start([call("lost"), call("next")])
    assert bench.wait_for(2) == ["next"]
    assert bench.given_up == ["lost"]
    bench.executor.close()


def test_close_ends_idle_threads_and_what_was_started_still_runs() -> None:
    begun, go = threading.Event(), threading.Event()

    def work(name: str) -> None:
        begun.set()
        assert go.wait(PATIENCE)

    before = set(threading.enumerate())
    bench = Bench(2, work)
    bench.executor.start([call("a")])
    assert begun.wait(PATIENCE)
    bench.executor.start([call("b"), call("c")])
    bench.executor.close()
    go.set()
    assert sorted(bench.wait_for(3)) == ["a", "b", "c"]
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert set(threading.enumerate()) <= before


def test_call_that_comes_after_the_close_runs() -> None:
    bench = Bench(1, nothing)
    bench.executor.start([call("a")])
    bench.wait_for(1)
    bench.executor.close()
    bench.executor.start([call("late")])
    assert bench.wait_for(2) == ["a", "late"]


def test_what_a_thread_cannot_survive_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("broken")
    bench = Bench(1, nothing)

    def broken(*ended: Ended) -> Call | None:
        with bench.changed:
            bench.given_up.append("")
            bench.changed.notify_all()
        raise error

    monkeypatch.setattr(bench, "done", broken)
    before = set(threading.enumerate())
    bench.executor.start([call("a")])
    bench.wait_for(1)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert bench.deaths == [error]
