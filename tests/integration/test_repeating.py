"""A call that is repeated: its generator is closed before, and what is safe is not sent again."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from sqspipes import Output, Step, TaskCallback
from sqspipes.brokers.base import Answer, Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.calls import held as runner_held
from tests.integration.support import PATIENCE, Seen, drain_of, passed, piped, until, waiting

MEMORY = {"broker": "memory://"}


class Counting(SqliteBroker):
    """A broker in memory that counts what is sent to the second task, also what it drops as known."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.sent: Counter[str] = Counter()

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        if queue.endswith("--kept.fifo"):
            self.sent.update(json.dumps(json.loads(entry.body)["value"]) for entry in entries)
        return super().send(queue, entries)


def sent(domain: str, function: Callable[[Any], Any], **options: Any) -> dict[str, int]:
    """Run a message through a task; return how often each of its outputs was sent."""
    broker = Counting()
    task = {"method": function, "name": "work", **options}
    with piped(domain, {"broker": broker}, task, {"name": "kept"}) as client:
        client.put(0)
        client.run("work", drain=True)
    return dict(broker.sent)


def failing(values: Callable[[int], Sequence[Any]], attempts: int = 3) -> Callable[[Any], Iterator[Any]]:
    """Return a generator function that fails after its values, but for the last attempt."""
    tries = itertools.count(1)

    def work(value: Any) -> Iterator[Any]:
        attempt = next(tries)
        for one in values(attempt):
            yield TaskCallback(one, len, ([],))  # by then it is safe
        if attempt < attempts:
            raise OSError("half-way")

    return work


# What is safe is not sent again


def test_outputs_that_are_safe_are_not_sent_again(domain: str) -> None:
    assert sent(domain, failing(lambda attempt: range(5))) == {str(value): 1 for value in range(5)}


def test_outputs_of_an_async_generator_that_are_safe_are_not_sent_again(domain: str) -> None:
    work = failing(lambda attempt: range(5))

    async def async_work(value: Any) -> AsyncIterator[Any]:
        for one in work(value):
            yield one

    assert sent(domain, async_work) == {str(value): 1 for value in range(5)}


def test_result_that_is_safe_is_not_sent_again_when_its_callback_fails(domain: str) -> None:
    tries = itertools.count(1)

    def fail() -> None:
        if next(tries) < 3:
            raise OSError

    assert sent(domain, lambda value: TaskCallback(7, fail)) == {"7": 1}


def test_output_that_comes_in_another_order_or_with_its_keys_in_another_is_the_same(domain: str) -> None:
    def values(attempt: int) -> list[Any]:
        keys = ["a", "b", 1] if attempt % 2 else [1, "b", "a"]
        rows = [{key: dict.fromkeys(keys, 0) for key in keys}, "x", "y"]
        return rows if attempt % 2 else rows[::-1]

    counted = sent(domain, failing(values))
    assert sorted(counted.values()) == [1, 1, 1]


def test_equal_outputs_are_counted_and_each_is_sent_once(domain: str) -> None:
    assert sent(domain, failing(lambda attempt: ["same"] * (attempt + 1))) == {'"same"': 4}


def test_outputs_with_an_id_of_their_own_are_counted_too(domain: str) -> None:
    """The id says nothing of an output: at another time it may be another message."""
    values = {
        1: [Output("a", id="one"), Output("b", id="one")],
        2: [Output("b", id="one"), Output("a", id="one"), Output("a", id="one")],
        3: [Output("a", id="one"), Output("c", id="one")],
    }
    assert sent(domain, failing(lambda attempt: values[attempt])) == {'"a"': 2, '"b"': 1, '"c"': 1}


def test_output_that_is_new_in_a_later_attempt_is_sent(domain: str) -> None:
    assert sent(domain, failing(lambda attempt: range(attempt))) == {"0": 1, "1": 1, "2": 1}


def test_newest_outputs_are_remembered(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_held, "MOST_HANDED_ON", 3)
    counted = sent(domain, failing(lambda attempt: range(5), attempts=2))
    assert counted == {"0": 2, "1": 2, "2": 1, "3": 1, "4": 1}


def test_what_a_rollback_produces_is_sent_though_an_attempt_yielded_the_same(domain: str) -> None:
    class Work(Step):
        def consume(self, value: int) -> Iterator[Any]:
            yield TaskCallback(7, len, ([],))
            raise OSError

        def rollback(self, value: int) -> None:
            self.produce(7)

    assert sent(domain, Work, retries=1) == {"7": 2}


def test_repeated_call_of_another_message_sends_its_own(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen, failed = Seen(), set[int]()

    def work(value: int) -> Iterator[Any]:
        yield TaskCallback("same", len, ([],))
        if value not in failed:
            failed.add(value)
            raise OSError
        yield value

    with piped(domain, pipe_broker, work, seen.take) as client:
        client.put_many([1, 2])
        client.run(drain=drain_of(pipe_broker))
    assert Counter(seen.values) == {"same": 2, 1: 1, 2: 1}


# Generators are closed


Events = list[tuple[str, int]]


def leaving(events: Events, kind: str) -> Any:
    """Return a task that is left half-way, and a tuple of event and attempt for what it does."""
    numbers = itertools.count(1)

    def callback(number: int) -> None:
        if number < 3:
            raise OSError("half-way")

    def work(value: int) -> Iterator[Any]:
        number = next(numbers)
        events.append(("begun", number))
        try:
            yield TaskCallback(1, callback, [number])
            yield 2
        finally:
            events.append(("closed", number))

    async def async_work(value: int) -> AsyncIterator[Any]:
        number = next(numbers)
        events.append(("begun", number))
        try:
            yield TaskCallback(1, callback, [number])
            yield 2
        finally:
            await asyncio.sleep(0.01)
            events.append(("closed", number))

    class Work(Step):
        def consume(self, value: int) -> Iterator[Any]:
            yield from work(value)

    methods = {
        "yield": work,
        "async def": async_work,
        "step": Work,
        "lambda": lambda value: async_work(value),
    }
    return {"method": methods[kind], "name": "work"}


KINDS = pytest.mark.parametrize("kind", ["yield", "async def", "step", "lambda"])


@KINDS
def test_generator_that_is_left_half_way_is_closed_before_the_next_attempt(
    kind: str, domain: str, pipe_broker: dict[str, Any]
) -> None:
    events: Events = []
    with piped(domain, pipe_broker, leaving(events, kind), {"name": "kept"}, backoff=0.0) as client:
        client.put(1)
        client.run("work", drain=drain_of(pipe_broker))
        assert waiting(client, "kept") == 2
    assert events == [(event, number) for number in (1, 2, 3) for event in ("begun", "closed")]


@KINDS
def test_generator_of_a_call_that_gives_up_is_closed_before_its_run_is_over(kind: str, domain: str) -> None:
    events: Events = []
    task = {**leaving(events, kind), "retries": 0}
    with piped(domain, MEMORY, task, {"name": "kept"}) as client:
        client.put(1)
        client.run("work", drain=True)
        assert events == [("begun", 1), ("closed", 1)]
        with pytest.raises(OSError, match="half-way"):
            client.call(1)
        assert events[2:] == [("begun", 2), ("closed", 2)]


def test_generator_is_closed_in_the_thread_that_ran_it(domain: str) -> None:
    threads: list[int] = []

    def work(value: int) -> Iterator[Any]:
        try:
            threads.append(threading.get_ident())
            yield {1}
        finally:
            threads.append(threading.get_ident())

    assert sent(domain, work, retries=0) == {}
    assert threads[0] == threads[1] != threading.get_ident()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_the_close_of_a_generator_raises_is_logged_and_changes_nothing(
    error: type[BaseException], domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(value: int) -> Iterator[Any]:
        try:
            yield {1}
        finally:
            raise error("in the close")

    with piped(domain, MEMORY, {"method": work, "retries": 0}, {"name": "kept"}) as client:
        client.put(1)
        assert client.run("work", drain=True).dead == 1
        (letter,) = client.dead_letters("work")
    assert "is a set" in letter.error
    lines = [record for record in caplog.records if "failed when it was closed" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.ERROR]
    assert f"{error.__name__}: in the close" in lines[0].getMessage()


def test_source_whose_generator_fails_when_it_is_closed_ends_its_run_in_good_order(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise ValueError("in the close")

    with piped(domain, MEMORY, endless, seen.take) as client:
        with client.start() as run:
            seen.wait(3)
        assert run.summary.reason == "stopped"
    assert "ValueError: in the close" in caplog.text


def test_generator_that_is_given_up_by_its_run_is_closed_as_soon_as_it_yields(domain: str) -> None:
    inside, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def work(value: int) -> Iterator[int]:
        try:
            yield 1
            inside.set()
            passed(go_on)
            yield 2
        finally:
            closed.set()

    with piped(domain, MEMORY, work, {"name": "kept"}) as client:
        client.put(1)
        run = client.start("work", stop_timeout=0.1)
        passed(inside)
        run.stop()
        run.wait(PATIENCE)
        go_on.set()
        passed(closed)
        until(lambda: waiting(client, "kept") == 1)
