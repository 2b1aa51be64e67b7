"""Async sources: called by the clock or iterated like plain ones, on the run's event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sqspipes import Output, Step, TaskCallback
from tests.integration.support import PATIENCE, Seen, drain_of, passed, piped, until

MEMORY = {"broker": "memory://"}


def test_source_is_called_by_the_clock_on_the_loop_of_the_tasks(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def generate(size: int) -> str:
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return "x" * size

    async def work(value: str) -> str:
        loops.add(asyncio.get_running_loop())
        return value.upper()

    seen = Seen()
    source = {"method": generate, "args": (3,), "interval": 0.01}
    with piped(domain, pipe_broker, source, work, seen.take) as client, client.start():
        assert seen.wait(3)[:3] == ["XXX"] * 3
    assert len(loops) == 1


def test_slow_source_runs_in_as_many_calls_as_it_has_workers(domain: str) -> None:
    now, most = 0, 0
    full = asyncio.Event()

    async def slow() -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            full.set()
        await asyncio.wait_for(full.wait(), PATIENCE)
        await asyncio.sleep(0.01)
        now -= 1
        return 1

    seen = Seen()
    with piped(domain, MEMORY, {"method": slow, "workers": 3}, seen.take) as client, client.start():
        seen.wait(12)
    assert most == 3


def test_source_that_raises_is_logged_and_called_again_and_ends_the_run_at_last(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> int:
        raise LookupError("no rows")

    source = {"method": broken, "retries": 1}
    with piped(domain, MEMORY, source, Seen().take) as client, pytest.raises(LookupError, match="no rows"):
        client.run()
    assert "broken failed, 1 in a row, again in 0.1 s: LookupError: no rows" in caplog.text


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_a_source_raises_the_loop_goes_on(error: type[BaseException], domain: str) -> None:
    tries: list[int] = []

    async def source() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise error
        return len(tries)

    seen = Seen()
    with piped(domain, MEMORY, source, seen.take) as client, client.start() as run:
        assert seen.wait(1)[0] == 2
        assert run.summary.failed == 1


def test_drain_ends_a_source_at_its_first_empty_return(domain: str, pipe_broker: dict[str, Any]) -> None:
    left = [1, 2, 3]

    async def source() -> int | None:
        await asyncio.sleep(0)
        return left.pop() if left else None

    seen = Seen()
    with piped(domain, pipe_broker, source, seen.take) as client:
        assert client.run(drain=drain_of(pipe_broker)).reason == "drained"
    assert sorted(seen.values) == [1, 2, 3]


def test_source_may_say_where_its_output_goes_and_be_called_back(domain: str) -> None:
    called = threading.Event()

    async def source() -> Any:
        return TaskCallback(Output("past it", task="take"), called.set)

    def between(value: Any) -> str:
        return "not this way"

    seen = Seen()
    with piped(domain, MEMORY, source, between, seen.take) as client, client.start():
        assert seen.wait(1)[0] == "past it"
        passed(called)


def test_generator_source_is_iterated_and_finished_when_it_ends(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    async def rows() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    seen = Seen()
    with piped(domain, pipe_broker, rows, seen.take) as client:
        assert client.run(drain=drain_of(pipe_broker)).reason == "drained"
    assert sorted(seen.values) == list(range(5))


def test_generator_source_is_resumed_when_its_value_is_safe(domain: str, pipe_broker: dict[str, Any]) -> None:
    stored: list[int] = []

    async def rows() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            stored.append(client._broker.depth(f"{domain}--take.fifo").waiting)

    with piped(domain, pipe_broker, rows, {"name": "take"}) as client, client.start() as run:
        until(lambda: run.summary.done == 3 and len(stored) == 3)
    assert stored == [1, 2, 3]


def test_generator_source_that_raises_begins_anew(domain: str) -> None:
    begun: list[int] = []

    async def rows() -> AsyncIterator[Any]:
        begun.append(1)
        yield len(begun)
        if len(begun) == 1:
            raise OSError("half-way")

    seen = Seen()
    with piped(domain, MEMORY, rows, seen.take) as client:
        assert client.run(drain=True).failed == 1
    assert sorted(seen.values) == [1, 2]


def test_generator_source_is_closed_when_the_run_stops(domain: str) -> None:
    closed: list[str] = []

    async def rows() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0.5)
            closed.append("closed")

    seen = Seen()
    with piped(domain, MEMORY, rows, seen.take) as client:
        with client.start():
            seen.wait(2)
        assert closed == ["closed"]


def test_source_that_hangs_is_given_up_at_the_end_of_a_stop(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    before = set(threading.enumerate())

    async def hangs() -> int:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()
        return 1

    with caplog.at_level(logging.WARNING), piped(domain, MEMORY, hangs, {"name": "take"}) as client:
        run = client.start(stop_timeout=0.3)
        passed(begun)
        run.stop()
        run.wait()
        passed(cancelled)
        until(lambda: set(threading.enumerate()) <= before)
    assert "failed" not in caplog.text


def test_step_may_be_an_async_source(domain: str) -> None:
    told: list[str] = []

    class Numbers(Step):
        interval = 0.01

        async def setup(self) -> None:
            self.number = 0
            told.append("setup")

        async def consume(self) -> None:
            self.number += 1
            self.produce(self.number)

        async def teardown(self) -> None:
            told.append("teardown")

    seen = Seen()
    with piped(domain, MEMORY, Numbers, seen.take) as client, client.start():
        assert sorted(seen.wait(3)[:3]) == [1, 2, 3]
    assert told == ["setup", "teardown"]


def test_step_that_is_a_plain_source_is_torn_down_in_its_thread(domain: str) -> None:
    threads: list[int] = []

    class Numbers(Step):
        def setup(self) -> None:
            threads.append(threading.get_ident())

        def consume(self) -> int:
            return 1

        def teardown(self) -> None:
            threads.append(threading.get_ident())

    seen = Seen()
    with piped(domain, MEMORY, Numbers, seen.take) as client, client.start():
        seen.wait(2)
    setup, teardown = threads
    assert setup == teardown != threading.get_ident()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_step_that_yields_is_a_source_that_is_iterated(kind: str, domain: str) -> None:
    class Plain(Step):
        def consume(self) -> Iterator[int]:
            self.produce("last")
            yield from (1, 2)

    class Async(Step):
        async def consume(self) -> AsyncIterator[int]:
            self.produce("last")
            for number in (1, 2):
                yield number

    seen = Seen()
    with piped(domain, MEMORY, Plain if kind == "plain" else Async, seen.take) as client:
        assert client.run(drain=True).done == 6
    assert sorted(map(str, seen.values)) == ["1", "2", "last"]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_setup_of_a_source_that_fails_is_tried_again_after_the_backoff(kind: str, domain: str) -> None:
    tries = Seen()

    class Plain(Step):
        def setup(self) -> None:
            tries.take(1)
            if len(tries.values) < 3:
                raise OSError("not yet")

        def consume(self) -> Iterator[int]:
            yield 1

    class Async(Plain):
        async def consume(self) -> AsyncIterator[int]:  # type: ignore[override]
            yield 1

    seen = Seen()
    with piped(domain, MEMORY, Plain if kind == "plain" else Async, seen.take, backoff=0.3) as client:
        assert client.run(drain=True).failed == 2
    assert seen.values == [1]
    assert tries.times[2] - tries.times[0] > 0.5


def test_submit_calls_an_async_source_once_and_hands_its_output_on(domain: str) -> None:
    async def one(value: int = 1) -> int:
        await asyncio.sleep(0)
        return value

    async def many() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            yield number

    for source, expected in ((one, [1]), (many, [1, 2, 3])):
        seen = Seen()
        with piped(domain, MEMORY, {"method": source, "interval": 1}, seen.take) as client:
            client.submit()
            client.run("take", drain=True)
        assert sorted(seen.values) == expected


def test_submit_tears_the_step_down_that_it_called(domain: str) -> None:
    told: list[str] = []

    class Numbers(Step):
        async def consume(self) -> int:
            told.append("consume")
            return 1

        async def teardown(self) -> None:
            told.append("teardown")

    with piped(domain, MEMORY, Numbers, {"name": "take"}) as client:
        client.submit()
        assert client.status().levels[-1].waiting == 1
    assert told == ["consume", "teardown"]
