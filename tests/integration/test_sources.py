"""Sources: first tasks that the clock calls. Functions, generators, their pauses, failures and callbacks."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sqspipes import EmptyTaskOutput, OptionError, Output, Retry, TaskCallback
from tests.integration.support import (
    PATIENCE,
    Seen,
    drain_of,
    in_flight,
    levels,
    passed,
    piped,
    run_until,
    until,
    waiting,
)
from tests.patience import once_in_time

MEMORY = {"broker": "memory://"}


def gaps(times: list[float]) -> list[float]:
    """Return the seconds between moments."""
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def lateness(times: list[float], begun: float, turns: list[float]) -> list[float]:
    """Return the seconds between each turn, in seconds since the begin, and its moment.

    One that is late, as on a busy machine, may be close to the next, but none comes before its turn.
    """
    return [at - begun - turn for at, turn in zip(sorted(times), turns, strict=False)]


# What is a source


def test_first_task_with_an_interval_is_a_source(domain: str) -> None:
    def tick(unit: str = "s") -> str:
        return unit

    seen = Seen()
    with piped(domain, MEMORY, {"method": tick, "interval": 0.01}, seen.take) as client:
        with client.start():
            assert seen.wait(2)[:2] == ["s", "s"]
        with pytest.raises(OptionError, match="source"):
            client.put("x")


def test_first_task_that_takes_its_args_and_no_value_is_a_source(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    def generate(size: int) -> str:
        return "x" * size

    seen = Seen()
    with piped(domain, pipe_broker, {"method": generate, "args": (3,)}, seen.take) as client, client.start():
        assert seen.wait(3)[:3] == ["xxx"] * 3


def test_first_task_that_takes_a_value_is_fed_by_put(domain: str) -> None:
    seen = Seen()

    def work(value: str, times: int = 2) -> str:
        return value * times

    with piped(domain, MEMORY, {"method": work, "args": (3,)}, seen.take) as client:
        client.put("ab")
        client.run(drain=True)
    assert seen.values == ["ababab"]


def test_first_task_with_a_value_that_may_be_left_out_is_fed_by_put(domain: str) -> None:
    seen = Seen()

    def work(value: Any = None) -> None:
        seen.take(value)

    with piped(domain, MEMORY, work) as client:
        client.put(7)
        client.run(drain=True)
    assert seen.values == [7]


def test_source_has_no_queue(domain: str) -> None:
    with piped(domain, MEMORY, {"method": int, "name": "tick", "interval": 1}, Seen().take) as client:
        assert client.queue_names == [f"{domain}--take.fifo", f"{domain}--take--dead.fifo"]


# The clock


def test_source_is_called_once_per_interval_whatever_its_workers(domain: str) -> None:
    def check() -> None:
        calls = Seen()

        def tick() -> int:
            calls.take(None)
            return 1

        one = {"method": tick, "interval": 0.2, "workers": 4}
        with piped(domain, MEMORY, one, Seen().take) as client:
            begun = time.monotonic()
            with client.start():
                calls.wait(6)
        late = lateness(calls.times, begun, [0, 0.2, 0.4, 0.6, 0.8, 1.0])
        assert min(late) >= 0
        assert max(late) < 2

    once_in_time(check)


def test_interval_may_be_a_function(domain: str) -> None:
    calls, intervals = Seen(), itertools.chain([0.3, 0.0], itertools.repeat(0.3))

    def tick() -> int:
        calls.take(None)
        return 1

    one = {"method": tick, "interval": lambda: next(intervals)}
    with piped(domain, MEMORY, one, Seen().take) as client:
        begun = time.monotonic()
        with client.start():
            calls.wait(4)
    assert min(lateness(calls.times, begun, [0, 0.3, 0.3, 0.6])) >= 0
    assert calls.times[2] - begun < 0.6


@pytest.mark.parametrize("generates", [False, True], ids=["function", "generator"])
def test_interval_that_raises_is_a_failure_of_its_source(domain: str, generates: bool) -> None:
    seen, asked = Seen(), itertools.count()

    def interval() -> float:
        if next(asked) % 2 == 0:
            raise ValueError("provoked by the test")
        return 0.01

    def tick() -> str:
        return "value"

    def ticks() -> Iterator[str]:
        while True:
            yield "value"

    source = {"name": "source", "method": ticks if generates else tick, "interval": interval, "backoff": 0.01}
    client = piped(domain, {"broker": "memory://"}, source, seen.take)
    with client.start("source"), client.start("take"):
        seen.wait(2)


def test_slow_source_runs_in_as_many_calls_as_it_has_workers(domain: str) -> None:
    lock, inside, most = threading.Lock(), [0], [0]
    together = threading.Barrier(3)

    def slow() -> int:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        together.wait(PATIENCE)
        with lock:
            inside[0] -= 1
        return 1

    seen = Seen()
    source = {"method": slow, "workers": 3, "backoff": 60}
    with piped(domain, MEMORY, source, seen.take) as client, client.start() as run:
        seen.wait(6)
        together.abort()  # each of the three calls fails once
        run.stop()
    assert most == [3]


def test_empty_source_is_asked_again_after_a_pause_that_grows(domain: str) -> None:
    def check() -> None:
        calls = Seen()

        def nothing() -> None:
            calls.take(None)

        with piped(domain, MEMORY, nothing, Seen().take) as client, client.start():
            calls.wait(4)
        for gap, least in zip(gaps(calls.times[:4]), (0.1, 0.2, 0.4), strict=True):
            assert least <= gap + 0.01 < least + 0.3

    once_in_time(check)


def test_pause_ends_with_the_first_value(domain: str) -> None:
    def check() -> None:
        calls = Seen()
        script = iter([None, EmptyTaskOutput, None, 1, 2, None])

        def poll() -> Any:
            calls.take(None)
            return next(script, None)

        with piped(domain, MEMORY, poll, Seen().take) as client, client.start():
            calls.wait(7)
        after = gaps(calls.times[:7])
        assert after[2] >= 0.39  # the third pause in a row
        assert max(after[3:5]) < 0.1  # values: no pause
        assert 0.09 <= after[5] < 0.3  # the first pause again

    once_in_time(check)


def test_interval_longer_than_the_pause_is_kept(domain: str) -> None:
    calls = Seen()

    def nothing() -> None:
        calls.take(None)

    with piped(domain, MEMORY, {"method": nothing, "interval": 0.4}, Seen().take) as client:
        begun = time.monotonic()
        with client.start():
            calls.wait(3)
    assert min(lateness(calls.times, begun, [0, 0.4, 0.8])) >= 0


# Failures


def test_source_that_raises_is_logged_and_called_again_after_its_backoff(
    domain: str, pipe_broker: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    calls, seen = Seen(), Seen()

    def shaky() -> int:
        calls.take(None)
        if len(calls.values) == 1:
            raise OSError("no file yet")
        return 5

    with piped(domain, pipe_broker, {"method": shaky, "backoff": 0.3}, seen.take) as client, client.start():
        seen.wait(1)
    assert gaps(calls.times)[0] > 0.29  # and no more than the log says
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "shaky failed" in line
    assert "again in 0.3 s: OSError: no file yet" in line


def test_run_ends_with_the_exception_after_as_many_failures_in_a_row_as_there_are_retries(
    domain: str,
) -> None:
    calls = Seen()

    def broken() -> int:
        calls.take(None)
        raise OSError("gone")

    with (
        piped(domain, MEMORY, {"method": broken, "retries": 2}, Seen().take) as client,
        pytest.raises(OSError, match="gone"),
    ):
        client.run()
    assert len(calls.values) == 3


def test_success_in_between_starts_the_count_anew(domain: str) -> None:
    seen, script = Seen(), iter([OSError(), OSError(), 1, OSError(), OSError(), 2])

    def shaky() -> Any:
        found = next(script, None)
        if isinstance(found, Exception):
            raise found
        return found

    with piped(domain, MEMORY, {"method": shaky, "retries": 2}, seen.take) as client:
        assert client.run(drain=True).failed == 4
    assert seen.values == [1, 2]


def test_source_without_a_limit_never_gives_up(domain: str) -> None:
    seen, failures = Seen(), iter(range(12))

    def shaky() -> Any:
        if next(failures, None) is not None:
            raise OSError
        return 1

    one = {"method": shaky, "retries": None, "backoff": 0.01}
    with piped(domain, MEMORY, one, seen.take) as client, client.start():
        seen.wait(1)


def test_result_of_a_source_that_is_not_json_is_a_failure_that_names_it(domain: str) -> None:
    def wrong() -> Any:
        return {"a": object()}

    with (
        piped(domain, MEMORY, {"method": wrong, "retries": 0}, Seen().take) as client,
        pytest.raises(ValueError, match=r"result of wrong is not JSON: \$\.a is an object"),
    ):
        client.run()


def test_source_that_is_not_to_be_repeated_ends_the_run_at_once(domain: str) -> None:
    def broken() -> int:
        raise OSError("gone")

    for options in ({"on_error": "raise"}, {"non_retryable": OSError}):
        with (
            piped(domain, MEMORY, {"method": broken, **options}, Seen().take) as client,
            pytest.raises(OSError, match="gone"),
        ):
            client.run()


def test_source_may_stop_the_run(domain: str) -> None:
    def last_one() -> int:
        client.stop()
        return 1

    with piped(domain, MEMORY, {"method": last_one, "interval": 60}, Seen().take) as client:
        assert client.run("last_one").reason == "stopped"
        assert waiting(client, "take") == 1


# Generators


def test_generator_source_is_iterated_and_finished_when_it_ends(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen, rounds = Seen(), Seen()

    def numbers() -> Iterator[int]:
        rounds.take(None)
        yield from range(5)

    with piped(domain, pipe_broker, numbers, seen.take) as client:
        assert client.run(drain=drain_of(pipe_broker)).reason == "drained"
    assert sorted(seen.values) == list(range(5))
    assert len(rounds.values) == 1


def test_generator_source_gives_one_value_per_interval(domain: str) -> None:
    yielded = Seen()

    def numbers() -> Iterator[int]:
        for number in range(4):
            yielded.take(number)
            yield number

    with piped(domain, MEMORY, {"method": numbers, "interval": 0.2, "workers": 3}, Seen().take) as client:
        client.run(drain=True)
    assert yielded.values == [0, 1, 2, 3]
    # A late one does not put off the next ones: it is the whole that takes its time.
    assert yielded.times[3] - yielded.times[0] > 0.5


def test_generator_source_is_resumed_when_its_value_is_safe(domain: str, pipe_broker: dict[str, Any]) -> None:
    stored = Seen()

    def rows() -> Iterator[int]:
        for row in range(3):
            yield row
            stored.take(waiting(client, "take"))

    with piped(domain, pipe_broker, rows, Seen().take) as client, client.start("rows"):
        assert stored.wait(3) == [1, 2, 3]


def test_generator_source_that_raises_begins_anew(domain: str) -> None:
    seen, rounds = Seen(), itertools.count()

    def rows() -> Iterator[str]:
        number = next(rounds)
        yield f"a{number}"
        if number == 0:
            raise OSError("lost the database")
        yield f"b{number}"

    with piped(domain, MEMORY, rows, seen.take) as client:
        assert client.run(drain=True).failed == 1
    assert sorted(seen.values) == ["a0", "a1", "b1"]


def test_generator_source_is_closed_when_the_run_stops(domain: str) -> None:
    closed, seen = threading.Event(), Seen()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    with piped(domain, MEMORY, endless, seen.take) as client:
        with client.start():
            seen.wait(3)
        passed(closed)


def test_drain_ends_a_function_source_at_its_first_empty_return(domain: str) -> None:
    seen, script = Seen(), iter([1, 2, None, 3])

    with piped(domain, MEMORY, {"method": lambda: next(script), "name": "poll"}, seen.take) as client:
        client.run(drain=True)
    assert (seen.values, next(script)) == ([1, 2], 3)


# What sources return


def test_source_may_say_where_its_output_goes(domain: str) -> None:
    second, third = Seen(), Seen()

    def rows() -> Iterator[Any]:
        yield 1
        yield Output(2, task="third")

    tasks = [rows, {"method": second.take, "name": "second"}, {"method": third.take, "name": "third"}]
    with piped(domain, MEMORY, *tasks) as client:
        client.run(drain=True)
    assert (second.values, third.values) == ([1], [2])


def test_priority_of_the_run_is_that_of_what_a_source_produces(domain: str) -> None:
    def rows() -> Iterator[int]:
        yield from (1, 2)

    with piped(domain, MEMORY, rows, {"method": Seen().take, "priorities": 3}) as client:
        client.run("rows", priority=2, drain=True)
        assert levels(client, "take") == [0, 0, 2]


def test_priority_of_the_run_may_be_a_function_of_the_output(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    def rows() -> Iterator[int]:
        yield from (0, 1, 1, 7)

    with piped(domain, pipe_broker, rows, {"method": Seen().take, "priorities": 3}) as client:
        client.run("rows", priority=lambda value: value, drain=drain_of(pipe_broker))
        assert levels(client, "take") == [1, 2, 1]


@pytest.mark.parametrize("kind", ["function", "generator", "callback", "output", "async generator"])
@pytest.mark.parametrize("nothing", [None, EmptyTaskOutput, EmptyTaskOutput()])
def test_function_that_gives_priorities_is_asked_about_values_that_go_on(
    kind: str, nothing: Any, domain: str
) -> None:
    rows, asked = [nothing, {"p": 0}, nothing, {"p": 1}], Seen()

    def level_of(value: Any) -> int:
        asked.take(value)
        return int(value["p"])

    def function() -> Any:
        return rows.pop() if rows else nothing

    def generator() -> Iterator[Any]:
        yield from reversed(rows)
        yield Output({"p": "not asked"}, priority=1)

    async def async_generator() -> AsyncIterator[Any]:
        for value in generator():
            yield value

    methods: dict[str, Any] = {
        "function": function,
        "generator": generator,
        "async generator": async_generator,
        "callback": lambda: TaskCallback(function(), print),
        "output": lambda: Output(made) if isinstance(made := function(), dict) else made,
    }
    source = {"method": methods[kind], "name": "fetch", "interval": 0.0, "priorities": 2, "retries": 0}
    with piped(domain, MEMORY, source, {"name": "kept"}) as client:
        client.start(priority=level_of)
        asked.wait(2)
        until(lambda: levels(client, "kept") == ([1, 1] if "generator" not in kind else [1, 2]))
        client.stop()
    assert asked.values == [{"p": 1}, {"p": 0}]


def test_submit_takes_a_function_that_gives_priorities(domain: str, pipe_broker: dict[str, Any]) -> None:
    def fetch() -> Iterator[Any]:
        yield {"p": 1}
        yield None
        yield {"p": 0}
        yield {"p": 1}

    with piped(domain, pipe_broker, {"method": fetch, "priorities": 2}, {"name": "kept"}) as client:
        client.submit(priority=lambda value: value["p"])
        until(lambda: levels(client, "kept") == [1, 2])
        with pytest.raises(OptionError, match="priority of what fetch returned"):
            client.submit(priority=lambda value: 99)


def test_level_that_is_not_there_ends_the_run_of_a_source_at_once(domain: str) -> None:
    calls = Seen()

    def fetch() -> int:
        calls.take(1)
        return 1

    told = pytest.raises(OptionError, match="priority of what fetch returned")
    with piped(domain, MEMORY, fetch, {"name": "kept"}) as client, told:
        client.run(priority=lambda value: 99)
    assert calls.values == [1]


def test_source_that_asks_for_a_retry_is_called_again_when_it_says(domain: str) -> None:
    times: list[float] = []

    def fetch() -> int | None:
        times.append(time.monotonic())
        if len(times) < 4:
            raise Retry(0.3 if len(times) < 3 else None)
        return None

    source = {"method": fetch, "interval": 0.0, "on_error": "raise", "backoff": 0.05}
    with piped(domain, MEMORY, source) as client:
        assert client.run(drain=True).failed == 3
    waited = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert min(waited[:2]) >= 0.3
    assert waited[2] >= 0.05


def test_source_that_asks_for_more_retries_than_there_are_ends_the_run(domain: str) -> None:
    def fetch() -> None:
        raise Retry(0)

    source = {"method": fetch, "retries": 2, "interval": 0.0}
    with piped(domain, MEMORY, source) as client, pytest.raises(Retry):
        client.run()


def test_args_of_the_run_replace_those_of_the_source(domain: str) -> None:
    seen = Seen()

    def count_to(most: int) -> Iterator[int]:
        yield from range(most)

    with piped(domain, MEMORY, {"method": count_to, "args": (100,)}, seen.take) as client:
        client.run("count_to", args=(2,), drain=True)
        client.run("take", drain=True)
    assert sorted(seen.values) == [0, 1]


# Callbacks


def test_callback_runs_when_the_result_is_safe_and_before_the_input_is_acknowledged(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    called = Seen()

    def work(value: int) -> TaskCallback:
        return TaskCallback(value + 1, look, ("a", "b"))

    def look(*args: str) -> None:
        called.take((args, waiting(client, "last"), in_flight(client, "work")))

    with piped(domain, pipe_broker, work, {"method": Seen().take, "name": "last"}) as client:
        client.put(1)
        with client.start("work"):
            assert called.wait(1) == [(("a", "b"), 1, 1)]


def test_callback_of_a_source_runs_when_its_value_is_safe(domain: str) -> None:
    called, script = Seen(), iter([1, 2])

    def poll() -> Any:
        number = next(script, None)
        return number and TaskCallback(number, lambda: called.take(waiting(client, "take")))

    with piped(domain, MEMORY, poll, Seen().take) as client:
        client.run("poll", drain=True)
    assert called.values == [1, 2]


def test_callbacks_of_a_generator_run_one_by_one(domain: str) -> None:
    called = Seen()

    def rows(value: int) -> Iterator[TaskCallback]:
        for row in range(value):
            yield TaskCallback(row, called.take, (row,))

    seen = Seen()
    with piped(domain, MEMORY, rows, seen.take) as client:
        client.put(3)
        client.run(drain=True)
    assert called.values == [0, 1, 2]
    assert sorted(seen.values) == [0, 1, 2]


def test_callback_runs_for_a_result_that_ends_the_line(domain: str) -> None:
    called = Seen()

    def work(value: int) -> TaskCallback:
        return TaskCallback(None, called.take, (value,))

    with piped(domain, MEMORY, work, Seen().take) as client:
        client.put(3)
        client.run(drain=True)
    assert called.values == [3]


def test_callback_that_raises_is_a_failed_attempt_and_hands_on_once(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    tries, seen = itertools.count(), Seen()

    def work(value: int) -> TaskCallback:
        return TaskCallback(value, once)

    def once() -> None:
        if next(tries) == 0:
            raise OSError("not yet")

    with piped(domain, pipe_broker, work, seen.take) as client:
        client.put(3)
        summary = run_until(client, done=2)
        assert waiting(client, "take") == 0
    assert (summary.failed, seen.values) == (1, [3])


def test_callback_of_the_last_task_runs(domain: str, pipe_broker: dict[str, Any]) -> None:
    called = Seen()

    def last(value: int) -> TaskCallback:
        return TaskCallback("nowhere", called.take, (value,))

    with piped(domain, pipe_broker, last) as client:
        client.put(3)
        with client.start():
            assert called.wait(1) == [3]


# submit


def test_submit_calls_the_source_once_and_hands_its_output_on(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    threads: list[int] = []

    def generate(size: int) -> str:
        threads.append(threading.get_ident())
        return "x" * size

    seen = Seen()
    last = {"method": seen.take, "priorities": 2}
    with piped(domain, pipe_broker, {"method": generate, "args": (1,)}, last) as client:
        client.submit(args=(4,), priority=1)
        assert threads == [threading.get_ident()]
        assert levels(client, "take") == [0, 1]
        with client.start("take"):
            assert seen.wait(1) == ["xxxx"]


def test_submit_hands_on_all_that_a_generator_yields(domain: str) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    with piped(domain, MEMORY, numbers, Seen().take) as client:
        client.submit()
        assert waiting(client, "take") == 3


def test_submit_raises_what_the_source_raises(domain: str) -> None:
    def broken() -> int:
        raise OSError("gone")

    with piped(domain, MEMORY, broken, Seen().take) as client, pytest.raises(OSError, match="gone"):
        client.submit()
