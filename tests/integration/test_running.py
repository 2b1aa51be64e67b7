"""Runs: which tasks, which levels, in which order, what they return, and what failing calls do to them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes import OptionError, Output, Run, Summary
from tests.conftest import MakeBroker
from tests.integration.support import (
    Seen,
    drain_of,
    in_flight,
    passed,
    piped,
    run_until,
    until,
    waiting,
)

MEMORY = {"broker": "memory://"}


def same(value: Any) -> Any:
    """Hand a value on."""
    return value


def add(value: int, more: int = 0) -> int:
    """Add."""
    return value + more


# Which tasks


def test_run_of_all_tasks_takes_a_value_from_end_to_end(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    tasks = [{"method": add, "args": (1,)}, {"method": add, "name": "again", "args": (10,)}, seen.take]
    with piped(domain, pipe_broker, *tasks) as client:
        client.put_many(range(3))
        summary = client.run(drain=drain_of(pipe_broker))
    assert sorted(seen.values) == [11, 12, 13]
    assert summary == Summary("drained", done=9, failed=0, dead=0)


@pytest.mark.parametrize("chosen", ["same", 0, -2, ["same"], (0,)])
def test_run_of_one_task_leaves_the_others_alone(chosen: Any, domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, same, seen.take) as client:
        client.put(1)
        client.run(chosen, drain=True)
        assert (seen.values, waiting(client, "take")) == ([], 1)


def test_run_of_a_list_runs_those(domain: str) -> None:
    seen = Seen()
    tasks = [same, {"method": same, "name": "middle"}, seen.take]
    with piped(domain, MEMORY, *tasks) as client:
        client.put(1)
        client.put(2, task="take")
        assert client.run(["take", 0], drain=True).done == 2
        assert (seen.values, waiting(client, "middle")) == ([2], 1)


@pytest.mark.parametrize("chosen", ["smae", 5, ["same", "x"], []])
def test_run_of_something_else_is_refused(chosen: Any, domain: str) -> None:
    with piped(domain, MEMORY, same) as client, pytest.raises(OptionError):
        client.run(chosen)


@pytest.mark.parametrize(
    "wrong",
    [{"priority": 16}, {"priority": "high"}, {"workers": 0}, {"iterate": 1}, {"drain": -1}, {"drain": "yes"},
     {"stop_timeout": -1}, {"prepare": print},
     {"min_priority": 2}, {"max_priority": -1}, {"min_priority": 1, "max_priority": 0}],
)  # fmt: skip
def test_argument_out_of_range_is_refused_at_the_start(wrong: dict[str, Any], domain: str) -> None:
    client = piped(domain, MEMORY, {"method": same, "priorities": 2})
    with client, pytest.raises(OptionError, match=next(iter(wrong))):
        client.run(**wrong)


def test_args_replace_those_of_the_task(domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, {"method": add, "args": (1,)}, seen.take) as client:
        client.put(1)
        client.run("add", args=(100,), drain=True)
        client.run("take", drain=True)
        client.put(1)
        client.run(drain=True)
    assert seen.values == [101, 2]


def test_args_for_several_tasks_are_refused_with_the_way(domain: str) -> None:
    with piped(domain, MEMORY, add, same) as client, pytest.raises(OptionError, match=r"args.*key 'args'"):
        client.run(args=(1,))


def test_workers_of_the_run_override_those_of_the_tasks(domain: str) -> None:
    three, done = Seen(), Seen()

    def together(value: int) -> None:
        three.take(value)
        three.wait(3)
        done.take(value)

    with piped(domain, MEMORY, together) as client:
        client.put_many(range(3))
        with client.start(workers=3):
            done.wait(3)
        assert client.get_task_by_name("together").workers == 1


# Levels


def test_higher_level_is_served_first(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen, gate = Seen(), threading.Event()

    def work(value: int) -> None:
        passed(gate)
        seen.take(value)

    with piped(domain, pipe_broker, {"method": work, "priorities": 3}) as client, client.start():
        for level in range(3):
            client.put(level, priority=level)
            until(lambda wanted=level + 1: in_flight(client, "work") == wanted)  # type: ignore[misc]
        gate.set()
        assert seen.wait(3) == [0, 2, 1]


def test_lower_level_does_not_wait_for_the_polls_of_an_idle_higher_one(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": seen.take, "priorities": 2}) as client:
        client.put_many(range(11), priority=1)
        with client.start():
            seen.wait(11)
            for number in range(3):
                client.put("low")
                seen.wait(12 + number, timeout=5.0)


def test_strict_serves_a_lower_level_when_the_higher_ones_are_empty(domain: str) -> None:
    seen, gate = Seen(), threading.Event()

    def work(value: Any) -> None:
        passed(gate)
        seen.take(value)

    with piped(domain, MEMORY, {"method": work, "priorities": 2, "strict": True}) as client:
        client.put_many(range(500), priority=1)
        run = client.start(drain=True)
        until(lambda: in_flight(client, "work") > 10)
        client.put_many(["low"] * 30)
        gate.set()
        run.wait(15)
    # A poll of the lower queue was open already, and takes one request's worth.
    assert seen.values[-20:] == ["low"] * 20


@pytest.mark.parametrize(
    ("levels", "served"),
    [
        ({"min_priority": 1}, [1, 2]),
        ({"max_priority": 1}, [0, 1]),
        ({"min_priority": 1, "max_priority": 1}, [1]),
    ],
)
def test_only_the_levels_that_are_asked_for_are_served(
    levels: dict[str, int], served: list[int], domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": seen.take, "priorities": 3}) as client:
        for level in range(3):
            client.put(level, priority=level)
        with client.start(**levels):
            assert sorted(seen.wait(len(served))) == served
        left = [level.priority for level in client.status().levels if level.waiting]
    assert left == [level for level in range(3) if level not in served]


def test_drain_leaves_levels_alone_that_are_not_served(domain: str) -> None:
    with piped(domain, MEMORY, {"method": same, "priorities": 2}) as client:
        client.put(1)
        client.put(2, priority=1)
        assert client.run(min_priority=1, drain=True).done == 1


# Drain


def test_drain_of_nothing_ends(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, same) as client:
        assert client.run(drain=drain_of(pipe_broker)) == Summary("drained", 0, 0, 0)


def test_drain_may_be_given_the_seconds_between_its_two_looks(domain: str) -> None:
    with piped(domain, MEMORY, same) as client:
        run = client.start(drain=0.6)
        with pytest.raises(TimeoutError):
            run.wait(0.5)
        assert run.wait(15).reason == "drained"


def test_drain_waits_for_what_is_in_backoff(domain: str) -> None:
    tries = itertools.count()

    def shaky(value: int) -> None:
        if next(tries) == 0:
            raise OSError

    with piped(domain, MEMORY, {"method": shaky, "backoff": 0.5}) as client:
        client.put(1)
        assert client.run(drain=True) == Summary("drained", done=1, failed=1, dead=0)


def test_drain_follows_what_tasks_send_upstream(domain: str) -> None:
    rounds = Seen()

    def first(value: int) -> int:
        rounds.take(value)
        return value

    def last(value: int) -> Output | None:
        return Output(value - 1, task="first") if value else None

    with piped(domain, MEMORY, first, last) as client:
        client.put(20)
        client.run(drain=True)
    assert rounds.values == list(range(20, -1, -1))


def test_drain_of_one_task_ends_though_others_have_work(domain: str) -> None:
    with piped(domain, MEMORY, same, {"method": same, "name": "last"}) as client:
        client.put(1)
        assert client.run("same", drain=True).done == 1
        assert waiting(client, "last") == 1


def test_drain_waits_for_what_another_client_holds(domain: str, make_broker: MakeBroker) -> None:
    gate, inside = threading.Event(), threading.Event()

    def hold(value: int) -> None:
        inside.set()
        passed(gate)

    shared = {"broker": make_broker("memory")}
    with (
        piped(domain, shared, {"method": hold, "name": "work"}) as one,
        piped(domain, shared, {"method": same, "name": "work"}) as other,
        one.start(),
    ):
        one.put(1)
        passed(inside)
        run = other.start(drain=True)
        with pytest.raises(TimeoutError):
            run.wait(0.3)
        gate.set()
        assert run.wait(15) == Summary("drained", 0, 0, 0)


# Failing calls


def test_failed_call_is_repeated_in_place(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()

    def shaky(value: int) -> None:
        seen.take(value)
        if len(seen.values) < 3:
            raise OSError

    with piped(domain, pipe_broker, shaky) as client:
        client.put(1, group="g")
        client.put(2, group="g")
        summary = run_until(client, done=2)
    assert seen.values == [1, 1, 1, 2]
    assert (summary.done, summary.failed, summary.dead) == (2, 2, 0)


def test_message_is_a_dead_letter_after_its_retries(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()

    def broken(value: int) -> None:
        seen.take(value)
        raise OSError

    with piped(domain, pipe_broker, broken, retries=2) as client:
        client.put(1)
        summary = run_until(client, dead=1)
        assert waiting(client, "broken") == 0
    assert (len(seen.values), summary.failed, summary.dead) == (3, 3, 1)


def test_retries_without_a_limit_never_give_up(domain: str) -> None:
    tries = itertools.count()

    def shaky(value: int) -> None:
        if next(tries) < 30:
            raise OSError

    with piped(domain, MEMORY, shaky, retries=None, backoff=0.001) as client:
        client.put(1)
        assert client.run(drain=True) == Summary("drained", done=1, failed=30, dead=0)


def test_task_has_retries_of_its_own(domain: str) -> None:
    def broken(value: int) -> None:
        raise OSError

    with piped(domain, MEMORY, {"method": broken, "retries": 1}, retries=5) as client:
        client.put(1)
        assert client.run(drain=True).failed == 2


@pytest.mark.parametrize("kind", [LookupError, (OSError, LookupError)])
def test_exception_that_is_not_retryable_is_a_dead_letter_at_once(kind: Any, domain: str) -> None:
    def broken(value: dict[str, int]) -> int:
        return value["missing"]

    with piped(domain, MEMORY, broken, non_retryable=kind) as client:
        client.put({})
        assert client.run(drain=True) == Summary("drained", done=0, failed=1, dead=1)


def test_backoff_is_a_function_of_attempt_and_error(domain: str, pipe_broker: dict[str, Any]) -> None:
    calls, asked = Seen(), []

    def delay(attempt: int, error: BaseException) -> float:
        asked.append((attempt, str(error)))
        return 0.2 * attempt

    def broken(value: int) -> None:
        calls.take(value)
        raise OSError(f"try {len(calls.values)}")

    with piped(domain, pipe_broker, {"method": broken, "retries": 2, "backoff": delay}) as client:
        client.put(1)
        run_until(client, dead=1)
    assert asked == [(1, "try 1"), (2, "try 2")]
    assert calls.times[1] - calls.times[0] >= 0.2
    assert calls.times[2] - calls.times[1] >= 0.4


@pytest.mark.parametrize("wrong", [lambda attempt, error: 1 / 0, lambda attempt, error: -1])
def test_backoff_that_fails_itself_does_not_lose_the_message(
    wrong: Callable[..., float], domain: str
) -> None:
    tries = itertools.count()

    def shaky(value: int) -> None:
        if next(tries) == 0:
            raise OSError

    with piped(domain, MEMORY, shaky, backoff=wrong) as client:
        client.put(1)
        assert client.run(drain=True).done == 1


def test_failing_message_keeps_its_place_and_lets_other_groups_pass(domain: str) -> None:
    seen = Seen()

    def work(value: str) -> None:
        if value == "a1" and "b2" not in seen.values:
            raise OSError
        seen.take(value)

    with piped(domain, MEMORY, work, retries=None) as client:
        client.put_many(["a1", "b1", "a2", "b2"], group=lambda value: value[0])
        client.run(drain=True)
    assert seen.values == ["b1", "b2", "a1", "a2"]


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt()])
def test_task_that_exits_is_a_failed_attempt(error: BaseException, domain: str) -> None:
    def leave(value: int) -> None:
        raise error

    with piped(domain, MEMORY, leave, retries=0) as client:
        client.put(1)
        assert client.run(drain=True).dead == 1


def test_error_is_raised_in_the_caller_and_the_message_given_back(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    error = OSError("disk full")

    def broken(value: int) -> None:
        raise error

    with piped(domain, pipe_broker, {"method": broken, "on_error": "raise"}) as client:
        client.put(1)
        with pytest.raises(OSError, match="disk full") as caught:
            client.run()
        assert caught.value is error
        until(lambda: (waiting(client, "broken"), in_flight(client, "broken")) == (1, 0))
        assert list(client.dead_letters()) == []


# In the background


def test_start_returns_at_once_and_tells_how_it_goes(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, seen.take) as client:
        run = client.start()
        assert isinstance(run, Run)
        client.put(1)
        seen.wait(1)
        until(lambda: run.summary.done == 1)
        with pytest.raises(TimeoutError):
            run.wait(0)
        run.stop()
        assert run.wait(15) == run.summary == Summary("stopped", 1, 0, 0)


def test_run_tells_what_each_task_has_done(domain: str) -> None:
    def check(value: int) -> int:
        return 1 // value

    with piped(domain, MEMORY, check, same, retries=1) as client:
        client.put_many([1, 1, 0])
        run = client.start(drain=True)
        run.wait(15)
        assert run.by_task == {"check": Summary("drained", 2, 2, 1), "same": Summary("drained", 2, 0, 0)}


def test_source_is_counted_as_a_task(domain: str) -> None:
    with piped(domain, MEMORY, {"method": make_one, "interval": 0}, same) as client:
        with client.start() as run:
            until(lambda: run.by_task["same"].done > 1)
        assert run.by_task["make_one"].done >= run.by_task["same"].done


def make_one() -> int:
    """Make a value."""
    return 1


def test_start_raises_wrong_arguments_itself(domain: str) -> None:
    with piped(domain, MEMORY, same) as client, pytest.raises(OptionError):
        client.start("smae")


def test_leaving_the_block_of_a_run_stops_it(domain: str) -> None:
    with piped(domain, MEMORY, same) as client:
        with client.start() as run:
            pass
        assert run.wait(0).reason == "stopped"


def test_error_of_a_run_is_raised_when_its_block_is_left(domain: str) -> None:
    def broken(value: int) -> None:
        raise OSError("disk full")

    with piped(domain, MEMORY, {"method": broken, "on_error": "raise"}) as client:
        client.put(1)
        with pytest.raises(OSError, match="disk full"), client.start() as run:
            until(lambda: run.over)


def test_two_clients_run_side_by_side_in_one_process(domain: str, pipe_broker: dict[str, Any]) -> None:
    ones, others = Seen(), Seen()
    with (
        piped(f"{domain}_a", pipe_broker, {"method": ones.take, "name": "work"}) as one,
        piped(f"{domain}_b", pipe_broker, {"method": others.take, "name": "work"}) as other,
        one.start(),
        other.start(),
    ):
        one.put_many([1] * 5)
        other.put_many([2] * 5)
        assert (ones.wait(5), others.wait(5)) == ([1] * 5, [2] * 5)


def test_one_client_runs_its_tasks_in_several_runs(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, same, seen.take) as client, client.start("same"), client.start("take"):
        client.put_many(range(5))
        assert sorted(seen.wait(5)) == list(range(5))


def test_run_again_goes_on_where_the_last_one_ended(domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, seen.take) as client:
        for number in range(3):
            client.put(number)
            client.run(drain=True)
    assert seen.values == [0, 1, 2]
