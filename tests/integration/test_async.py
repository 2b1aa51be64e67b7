"""Async tasks: on one event loop, up to ``workers`` at once, with the promises of all others."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from sqspipes import RunError, TaskClient, current_message
from tests.integration.support import PATIENCE, Seen, in_flight, passed, piped, run_until, until, waiting

MEMORY = {"broker": "memory://"}


def test_calls_run_together_on_one_loop_and_hand_on(domain: str, pipe_broker: dict[str, Any]) -> None:
    threads: set[int] = set()
    present: list[int] = []
    full = asyncio.Event()

    async def fetch(value: int) -> int:
        threads.add(threading.get_ident())
        present.append(value)
        if len(present) == 20:
            full.set()
        await asyncio.wait_for(full.wait(), PATIENCE)
        return value

    seen = Seen()
    with piped(domain, pipe_broker, {"method": fetch, "workers": 20}, seen.take) as client:
        client.put_many(range(20))
        with client.start() as run:
            assert sorted(seen.wait(20)) == list(range(20))
            until(lambda: run.summary.done == 40)
    assert len(threads) == 1


def test_no_more_than_workers_run_at_once(domain: str) -> None:
    now, most = 0, 0

    async def work(value: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    with piped(domain, MEMORY, {"method": work, "workers": 3}) as client:
        client.put_many(range(30))
        assert client.run(drain=True).done == 30
    assert most == 3


def test_group_is_called_one_by_one_and_in_order(domain: str, pipe_broker: dict[str, Any]) -> None:
    order: list[tuple[str, int]] = []

    async def work(value: int) -> int:
        order.append(("begin", value))
        await asyncio.sleep(0.01 if value % 2 else 0.0)
        order.append(("end", value))
        return value

    seen = Seen()
    with piped(domain, pipe_broker, {"method": work, "workers": 5}, seen.take) as client:
        client.put_many(range(10), group="g")
        with client.start():
            assert seen.wait(10) == list(range(10))
    assert order == [(what, value) for value in range(10) for what in ("begin", "end")]


def test_failure_is_tried_again_and_then_a_dead_letter(domain: str, pipe_broker: dict[str, Any]) -> None:
    async def work(value: int) -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with piped(domain, pipe_broker, {"method": work, "retries": 1}) as client:
        client.put(5)
        run_until(client, dead=1)
        (letter,) = client.dead_letters("work")
    assert (letter.value, letter.error, letter.attempts) == (5, "no", 2)
    assert "in work" in letter.traceback


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_whatever_a_call_raises_the_loop_goes_on(error: type[BaseException], domain: str) -> None:
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        if value == 0:
            raise error
        return value

    seen = Seen()
    with piped(domain, MEMORY, {"method": work, "retries": 0}, seen.take) as client:
        client.put_many([0, 1])
        with client.start() as run:
            assert seen.wait(1) == [1]
            until(lambda: run.summary.dead == 1)


def test_async_generator_sends_each_value_as_it_comes(domain: str, pipe_broker: dict[str, Any]) -> None:
    go_on = threading.Event()

    async def pages(value: int) -> AsyncIterator[list[Any]]:
        yield [value, current_message().id]
        await asyncio.get_running_loop().run_in_executor(None, passed, go_on)
        yield [value + 1, current_message().id]

    seen = Seen()
    with piped(domain, pipe_broker, pages, seen.take) as client:
        client.put(1, id="one")
        with client.start():
            assert seen.wait(1) == [[1, "one"]]
            go_on.set()
            assert seen.wait(2) == [[1, "one"], [2, "one"]]


def test_generator_that_fails_half_way_sends_each_value_once(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    tries: list[int] = []
    closed: list[str] = []

    async def pages(value: int) -> AsyncIterator[int]:
        tries.append(value)
        try:
            for number in range(3):
                if number == 2 and len(tries) == 1:
                    raise OSError("half-way")
                yield number
        finally:
            closed.append("closed")

    seen = Seen()
    with piped(domain, pipe_broker, pages, seen.take) as client:
        client.put(1)
        with client.start() as run:
            assert sorted(seen.wait(3)) == [0, 1, 2]
            until(lambda: run.summary.failed == 1 and run.summary.done == 4)
    assert closed == ["closed"] * 2


def test_generator_whose_value_cannot_be_sent_is_closed(domain: str) -> None:
    closed = threading.Event()

    async def pages(value: int) -> AsyncIterator[Any]:
        try:
            yield {1, 2}
        finally:
            closed.set()

    with piped(domain, MEMORY, pages, {"name": "next"}) as client:
        client.put(1)
        run_until(client, "pages", dead=1)
        passed(closed)


def test_each_call_knows_its_own_message(domain: str) -> None:
    async def work(value: str) -> list[str]:
        await asyncio.sleep(0.02)
        return [value, current_message().id]

    seen = Seen()
    with piped(domain, MEMORY, {"method": work, "workers": 8}, seen.take) as client:
        client.put_many("abcdefgh", id=str)
        with client.start():
            assert sorted(seen.wait(8)) == [[each, each] for each in "abcdefgh"]


def test_stop_waits_for_calls_and_gives_them_up_after_its_time(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def work(value: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with piped(domain, pipe_broker, work, stop_timeout=0.5) as client:
        client.put(1)
        with client.start() as run:
            passed(begun)
        assert run.summary.done == 0
        passed(cancelled)
        assert in_flight(client, "work") + waiting(client, "work") == 1


def test_no_loop_and_no_thread_is_left(domain: str) -> None:
    async def work(value: int) -> int:
        return value

    before = set(threading.enumerate())
    with piped(domain, MEMORY, {"method": work, "workers": 4}) as client:
        client.put_many(range(20))
        assert client.run(drain=True).done == 20
        until(lambda: set(threading.enumerate()) <= before)


def test_call_that_keeps_the_loop_is_told_of(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    go_on = threading.Event()

    async def rude(value: int) -> None:
        go_on.wait(PATIENCE)

    def told() -> bool:
        return "rude one has kept the event loop for " in caplog.text

    with caplog.at_level(logging.WARNING), piped(domain, MEMORY, rude, lease=240.0) as client:
        client.put(1, id="one")
        with client.start():
            until(told)
            go_on.set()
    assert caplog.text.count("has kept the event loop") == 1


def test_error_that_stops_the_run_is_raised(domain: str) -> None:
    async def work(value: int) -> None:
        raise LookupError("stop")

    with piped(domain, MEMORY, work, on_error="raise") as client:
        client.put(1)
        with pytest.raises(LookupError, match="stop"):
            client.run()
        assert waiting(client, "work") == 1


def test_partial_and_callable_object_may_be_async(domain: str) -> None:
    class Twice:
        async def __call__(self, value: int) -> int:
            return 2 * value

    async def add(more: int, value: int) -> int:
        return value + more

    tasks = [{"method": partial(add, 3), "name": "add"}, {"method": Twice(), "name": "twice"}]
    seen = Seen()
    with piped(domain, MEMORY, *tasks, seen.take) as client:
        client.put(1)
        with client.start():
            assert seen.wait(1) == [8]


def test_trial_calls_async_tasks(domain: str) -> None:
    async def split(value: str) -> AsyncIterator[str]:
        for word in value.split():
            yield word

    async def shout(value: str) -> str:
        await asyncio.sleep(0)
        return value.upper()

    client = TaskClient(domain, broker="memory://").register_tasks([split, shout])
    assert client.call("a b") == ["A", "B"]


def test_loop_that_dies_ends_the_run_with_its_name(domain: str) -> None:
    def break_loop() -> None:
        raise SystemExit("from a callback")

    async def work(value: int) -> None:
        asyncio.get_running_loop().call_soon(break_loop)

    with piped(domain, MEMORY, work) as client:
        client.put(1)
        with pytest.raises(RunError, match="event loop died: SystemExit: from a callback"):
            client.run()


def test_slow_calls_cost_no_thread_each(domain: str) -> None:
    threads: list[int] = []

    async def work(value: int) -> None:
        threads.append(threading.active_count())
        await asyncio.sleep(0.2)

    before = threading.active_count()
    with piped(domain, MEMORY, {"method": work, "workers": 200}) as client:
        client.put_many(range(200))
        began = time.monotonic()
        assert client.run(drain=True).done == 200
    assert time.monotonic() - began < 10
    assert max(threads) - before < 20
