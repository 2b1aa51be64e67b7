"""Ends that would be silent, or none: a run that dies says so, and whatever a teardown raises, the run ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes import RunError, Step
from sqspipes.brokers.base import Broker
from sqspipes.engine import overdue
from tests.integration.support import PATIENCE, Seen, passed, piped, until

MEMORY = {"broker": "memory://"}


def errors(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno >= logging.ERROR]


# A run in the background that dies


def test_run_in_the_background_that_dies_says_so(
    domain: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqspipes")
    begun, go_on = threading.Event(), threading.Event()

    def work(value: int) -> int:
        begun.set()
        passed(go_on)
        return value

    with (
        piped(domain, {"broker": broker}, work, {"name": "sink"}) as client,
        piped(domain, {"broker": broker}, {"name": "sink"}) as other,
    ):
        client.create_queues()
        run = client.start("work")
        client.put(1)
        passed(begun)
        other.delete()
        go_on.set()
        assert run.join(PATIENCE)
        assert run.summary.reason == "died"
        assert run.by_task["work"].reason == "died"
        assert isinstance(run.error, RunError)
        with pytest.raises(RunError):
            run.wait()
    assert [line for line in errors(caplog) if f"{domain} ends: " in line and "sink" in line]
    assert any(f"{domain}: died, " in record.getMessage() for record in caplog.records)


def test_task_whose_error_ends_the_run_says_so(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    def work(value: int) -> None:
        raise ValueError("no luck")

    with piped(domain, MEMORY, work, on_error="raise") as client:
        client.put(1, id="one")
        run = client.start()
        assert run.join(PATIENCE)
        assert run.summary.reason == "raised"
        assert isinstance(run.error, ValueError)
    assert errors(caplog) == ["work one failed, the run ends: ValueError: no luck"]


def test_run_that_ends_well_has_no_error(domain: str) -> None:
    with piped(domain, MEMORY, lambda_named()) as client, client.start() as run:
        pass
    assert (run.error, run.summary.reason) == (None, "stopped")


def lambda_named() -> dict[str, Any]:
    return {"name": "work", "method": lambda value: None}


def test_log_handler_that_raises_does_not_keep_a_dead_run_from_its_end(domain: str) -> None:
    class Refuses(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "ends" in record.getMessage() or "died" in record.getMessage():
                raise SystemExit("the log is full")

    handler, logger = Refuses(), logging.getLogger("sqspipes")
    logger.addHandler(handler)
    try:
        with piped(domain, MEMORY, lambda_named()) as client:
            client.create_queues()
            run = client.start()
            client.delete()
            assert run.join(PATIENCE)
            assert isinstance(run.error, RunError)
    finally:
        logger.removeHandler(handler)


# A source that hangs


@pytest.mark.parametrize("hangs", ["call", "generator", "interval", "async"])
def test_source_that_hangs_is_warned_of_and_the_run_can_be_stopped(
    domain: str, hangs: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(overdue, "LONG_LEASES", 0.02)
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> float:
        begun.set()
        passed(go_on)
        return 0.0

    async def hang_async() -> None:
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.01)

    def generate() -> Iterator[float]:
        yield hang()

    method = {"call": hang, "generator": generate, "async": hang_async, "interval": lambda: None}[hangs]
    source = {"method": method, "name": "tick", "interval": hang if hangs == "interval" else 0.0}
    with piped(domain, MEMORY, source, {"name": "sink"}, stop_timeout=0.2) as client:
        run = client.start("tick")
        passed(begun)
        until(lambda: any("tick (a source) has been running" in line for line in caplog.messages))
        run.stop()
        assert run.join(PATIENCE)
        go_on.set()
    assert run.error is None


# Whatever a teardown raises

ENDS = [ValueError("no"), SystemExit(3), KeyboardInterrupt("no"), GeneratorExit("no")]


def step_that(base: type[Step], error: BaseException) -> tuple[type[Step], Seen]:
    torn_down = Seen()

    class Work(base):  # type: ignore[misc, valid-type]
        label = "work"

        def teardown(self) -> None:
            torn_down.take(1)
            raise error

    return Work, torn_down


class Plain(Step):
    def consume(self, value: int) -> int:
        return value


class Async(Step):
    async def consume(self, value: int) -> int:
        return value


class Source(Step):
    def consume(self) -> int | None:
        self.produced = getattr(self, "produced", 0) + 1
        return self.produced if self.produced < 3 else None


class AsyncSource(Step):
    async def consume(self) -> int | None:
        self.produced = getattr(self, "produced", 0) + 1
        return self.produced if self.produced < 3 else None


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [Plain, Async, Source, AsyncSource])
def test_teardown_may_raise_anything(
    domain: str, kind: type[Step], error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    step, torn_down = step_that(kind, error)
    seen = Seen()
    with piped(domain, MEMORY, step, {"method": seen.take, "name": "take"}, stop_timeout=5.0) as client:
        if kind in (Plain, Async):
            client.put_many([1, 2])
        run = client.start(drain=True)
        assert run.join(PATIENCE)
        assert (run.error, run.summary.reason) == (None, "drained")
    assert sorted(seen.values) == [1, 2]
    assert torn_down.values
    assert "teardown of step work failed" in caplog.messages


def test_what_is_left_on_the_loop_may_raise_anything_and_steps_are_torn_down(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    torn_down, left = Seen(), []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            raise SystemExit("no") from None

    class Work(Step):
        async def consume(self, value: int) -> None:
            left.append(asyncio.create_task(stubborn()))

        async def teardown(self) -> None:
            torn_down.take(1)

    with piped(domain, MEMORY, Work, stop_timeout=5.0) as client:
        client.put(1)
        run = client.start(drain=True)
        assert run.join(PATIENCE)
        assert run.error is None
    assert torn_down.values == [1]


def test_loop_that_a_task_ends_is_told_of_and_the_run_does_not_wait_for_it(
    domain: str, broker: Broker
) -> None:
    left, begun = [], threading.Event()

    async def leave() -> None:
        raise SystemExit("no")

    async def work(value: int) -> None:
        begun.set()
        left.append(asyncio.create_task(leave()))
        await asyncio.sleep(3_600)

    with piped(domain, {"broker": broker}, work, stop_timeout=10.0) as client:
        client.put(1)
        run = client.start()
        passed(begun)
        assert run.join(8.0)
        assert isinstance(run.error, RunError)
        assert run.error.part == "event loop"
