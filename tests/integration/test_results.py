"""What a task returns: nothing, a value, several, and an Output that says where it goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes import (
    Broker,
    EmptyTaskOutput,
    OptionError,
    Output,
    TaskClient,
    current_message,
)
from sqspipes.brokers.base import Entry
from sqspipes.calls import perform as runner_calls
from sqspipes.defaults import MOST_HOPS
from tests.integration.support import (
    Seen,
    in_flight,
    passed,
    piped,
    run_until,
    until,
    waiting,
)

MEMORY = {"broker": "memory://"}


def to_groups(client: TaskClient, task: str) -> list[tuple[Any, str | None, int]]:
    """Return value, group and level of a task's messages, by making letters of them."""
    client.run(task, drain=True)
    return sorted((letter.value, letter.group, letter.priority) for letter in client.dead_letters(task))


def bury(value: Any) -> None:
    """Make a dead letter of everything: a letter tells all that travelled along."""
    raise ValueError


LAST = {"method": bury, "name": "last", "retries": 0}


# Nothing, or a value


@pytest.mark.parametrize("ignore_none", [True, False])
def test_none_ends_the_line_unless_it_is_a_value(
    ignore_none: bool, domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def work(value: int) -> int | None:
        return value or None

    with piped(domain, pipe_broker, work, seen.take, ignore_none=ignore_none) as client:
        client.put(0, group="g")
        client.put(1, group="g")
        with client.start():
            assert seen.wait(1 if ignore_none else 2) == ([1] if ignore_none else [None, 1])


@pytest.mark.parametrize("empty", [EmptyTaskOutput, EmptyTaskOutput()])
def test_empty_output_always_ends_the_line(empty: Any, domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()

    def work(value: int) -> Any:
        return value or empty

    with piped(domain, pipe_broker, work, seen.take, ignore_none=False) as client:
        client.put(0, group="g")
        client.put(1, group="g")
        with client.start():
            assert seen.wait(1) == [1]


@pytest.mark.parametrize(
    "value", [0, "", [], {}, False, "ä\U0001f600\ud800", 1.5, [None], {"a": [1, {"b": None}]}]
)
def test_value_goes_on_as_json(value: Any, domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()

    def work(given: Any) -> Any:
        return given

    with piped(domain, pipe_broker, work, seen.take) as client:
        client.put(value)
        with client.start():
            assert seen.wait(1) == [value]


def test_tuple_becomes_a_list_on_its_way_through_a_queue(domain: str) -> None:
    seen = Seen()

    def work(given: Any) -> Any:
        return (given, {"pair": (1, 2)})

    with piped(domain, MEMORY, work, seen.take) as client:
        client.put(1)
        client.run(drain=True)
    assert seen.values == [[1, {"pair": [1, 2]}]]


def test_result_of_the_last_task_goes_nowhere_and_may_be_anything(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    def work(value: int) -> object:
        return object()

    with piped(domain, pipe_broker, work) as client:
        client.put(1)
        summary = run_until(client, done=1)
    assert (summary.done, summary.dead) == (1, 0)


def test_result_that_is_too_large_is_a_dead_letter(domain: str, pipe_broker: dict[str, Any]) -> None:
    def work(value: int) -> str:
        return "x" * 1_048_576

    with piped(domain, pipe_broker, work, Seen().take) as client:
        client.put(1)
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert letter.error_type == "TooLargeError"
    assert "result of work is too large" in letter.error
    assert letter.attempts == 1


# Several values


def test_generator_sends_each_value_as_it_comes(domain: str, pipe_broker: dict[str, Any]) -> None:
    arrived = threading.Event()

    def work(value: int) -> Iterator[int]:
        yield value
        passed(arrived)
        yield value + 1

    seen = Seen()

    def last(value: int) -> None:
        arrived.set()
        seen.take(value)

    with piped(domain, pipe_broker, work, last) as client:
        client.put(1)
        with client.start():
            assert sorted(seen.wait(2)) == [1, 2]


def test_input_of_a_generator_is_acknowledged_after_its_last_value(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    held: list[int] = []

    def work(value: int) -> Iterator[int]:
        for number in range(3):
            yield number
            held.append(in_flight(client, "work"))

    seen = Seen()
    with piped(domain, pipe_broker, work, seen.take) as client:
        client.put(1)
        with client.start():
            seen.wait(3)
            until(lambda: in_flight(client, "work") == 0)
    assert held == [1, 1, 1]


def test_generator_leaves_out_what_ends_the_line(domain: str) -> None:
    seen = Seen()

    def work(value: int) -> Iterator[Any]:
        yield from (1, None, EmptyTaskOutput, 2)

    with piped(domain, MEMORY, work, seen.take) as client:
        client.put(1)
        client.run(drain=True)
    assert sorted(seen.values) == [1, 2]


def test_equal_values_of_a_generator_are_messages_of_their_own(domain: str) -> None:
    seen = Seen()

    def work(value: int) -> Iterator[int]:
        yield from (7, 7, 7)

    with piped(domain, MEMORY, work, seen.take) as client:
        client.put(1)
        client.run(drain=True)
    assert seen.values == [7, 7, 7]


def test_generator_that_fails_half_way_puts_nothing_twice(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen, tries = Seen(), iter((True, False))

    def work(value: int) -> Iterator[int]:
        yield from range(3)
        if next(tries):
            raise OSError("half-way")
        yield 3

    with piped(domain, pipe_broker, work, seen.take) as client:
        client.put(1)
        summary = run_until(client, done=5)
        assert waiting(client, "take") == 0
    assert sorted(seen.values) == [0, 1, 2, 3]
    assert (summary.failed, summary.dead) == (1, 0)


def test_values_of_a_generator_keep_the_order_of_their_group(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def work(value: int) -> Iterator[int]:
        yield from range(12)

    with piped(domain, pipe_broker, work, {"method": seen.take, "workers": 4}) as client:
        client.put(1, group="one")
        with client.start():
            assert seen.wait(12) == list(range(12))


# Output


def test_output_goes_to_the_task_it_names(domain: str, pipe_broker: dict[str, Any]) -> None:
    other, last = Seen(), Seen()

    def work(value: int) -> Output:
        return Output(value, task="last" if value else None)

    tasks = [work, {"method": other.take, "name": "other"}, {"method": last.take, "name": "last"}]
    with piped(domain, pipe_broker, *tasks) as client:
        client.put_many([0, 1])
        with client.start():
            assert (other.wait(1), last.wait(1)) == ([0], [1])


def test_output_may_go_back_to_an_earlier_task_or_its_own(domain: str) -> None:
    seen = Seen()

    def count_down(value: int) -> Output:
        seen.take(value)
        return Output(value - 1, task="count_down") if value else Output("done", task="end")

    ends = Seen()
    with piped(domain, MEMORY, count_down, {"method": ends.take, "name": "end"}) as client:
        client.put(3)
        client.run(drain=True)
    assert (seen.values, ends.values) == ([3, 2, 1, 0], ["done"])


def test_group_and_priority_of_the_input_travel_on(domain: str) -> None:
    def work(value: int) -> int:
        return value

    with piped(domain, MEMORY, {"method": work, "priorities": 3}, LAST) as client:
        client.put(1, group="ada", priority=2)
        client.run("work", drain=True)
        assert to_groups(client, "last") == [(1, "ada", 2)]


def test_output_of_a_message_without_a_group_has_none(domain: str) -> None:
    def work(value: int) -> int:
        return value

    with piped(domain, MEMORY, work, LAST) as client:
        client.put(1)
        client.run("work", drain=True)
        assert to_groups(client, "last") == [(1, None, 0)]


def test_output_has_the_group_and_priority_it_says(domain: str) -> None:
    def work(value: int) -> Iterator[Output]:
        yield Output(1, group="grace")
        yield Output(2, priority=1)
        yield Output(3, group=7, priority=2)

    with piped(domain, MEMORY, work, {**LAST, "priorities": 3}) as client:
        client.put(0, group="ada")
        client.run("work", drain=True)
        assert to_groups(client, "last") == [(1, "grace", 0), (2, "ada", 1), (3, "7", 2)]


def test_priority_is_lowered_to_the_highest_level_there_is(domain: str) -> None:
    def work(value: int) -> Output:
        return Output(value, priority=None if value == 1 else 15)

    tasks = [{"method": work, "priorities": 4}, {**LAST, "priorities": 2}]
    with piped(domain, MEMORY, *tasks) as client:
        client.put(1, priority=3)
        client.put(2)
        client.run("work", drain=True)
        assert to_groups(client, "last") == [(1, None, 1), (2, None, 1)]


def test_output_with_an_id_that_is_there_already_is_not_stored_again(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def work(value: int) -> Output:
        return Output(value, id="order-1" if value < 3 else "order-3", group="g")

    with piped(domain, pipe_broker, work, seen.take) as client:
        for value in (1, 2, 3):
            client.put(value, group="g")
        with client.start():
            assert seen.wait(2) == [1, 3]


def test_output_to_an_unknown_task_is_a_dead_letter(domain: str) -> None:
    def work(value: int) -> Output:
        return Output(value, task="lst")

    with piped(domain, MEMORY, work, LAST) as client:
        client.put(1)
        client.run(drain=True)
        (letter,) = client.dead_letters("work")
    assert letter.error_type == "OptionError"
    assert "'lst'" in letter.error
    assert "last" in letter.error


def test_output_to_a_source_is_a_dead_letter_at_once(domain: str, pipe_broker: dict[str, Any]) -> None:
    def fetch() -> None:
        """Make nothing."""

    def work(value: int) -> Output:
        return Output(value, task="fetch")

    tasks = ({"method": fetch, "interval": 60.0}, work, {"name": "kept"})
    with piped(domain, pipe_broker, *tasks) as client:
        client.put(1, task="work")
        assert run_until(client, "work", dead=1).failed == 1
        (letter,) = client.dead_letters("work")
    assert (letter.value, letter.error_type) == (1, "OptionError")
    assert letter.error.endswith("Output's task is 'fetch': allowed are work, kept")


def test_source_whose_output_goes_to_itself_ends_its_run_at_once(domain: str) -> None:
    calls = Seen()

    def fetch() -> Output:
        calls.take(1)
        return Output(1, task="fetch")

    with piped(domain, MEMORY, fetch, {"name": "kept"}) as client:
        with pytest.raises(OptionError, match="Output's task is 'fetch': allowed are kept"):
            client.run()
        with pytest.raises(OptionError, match="Output's task is 'fetch': allowed are kept"):
            client.submit()
        assert calls.values == [1, 1]
        client.register_tasks([fetch, {"method": lambda value: Output(value, task="fetch"), "name": "again"}])
        with pytest.raises(OptionError, match="Output's task is 'fetch': allowed are again"):
            client.call(1)


@pytest.mark.parametrize(
    "wrong",
    [{"task": 3}, {"priority": 16}, {"priority": -1}, {"group": ""}, {"id": "x" * 1001}, {"group": 1.5}],
)
def test_output_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="Output"):
        Output(1, **wrong)


def test_output_may_hold_none_as_a_value(domain: str) -> None:
    seen = Seen()

    def work(value: int) -> Iterator[Output]:
        yield Output(None, group="g")
        yield Output(1, group="g")

    with piped(domain, MEMORY, work, seen.take, ignore_none=False) as client:
        client.put(1)
        client.run(drain=True)
    assert seen.values == [None, 1]


def test_foreign_message_is_a_value(domain: str, broker: Broker) -> None:
    seen = Seen()
    with piped(domain, {"broker": broker}, seen.take) as client:
        client.create_queues()
        broker.send(client.queue_names[0], [Entry('{"from": "elsewhere"}', "g", "i")])
        with client.start():
            assert seen.wait(1) == [{"from": "elsewhere"}]


def test_body_that_is_not_json_is_a_dead_letter_and_the_rest_goes_on(domain: str, broker: Broker) -> None:
    seen = Seen()
    with piped(domain, {"broker": broker}, seen.take) as client:
        client.create_queues()
        broker.send(client.queue_names[0], [Entry("<order/>", "g", "i"), Entry("1", "g", "j")])
        with client.start():
            assert seen.wait(1) == [1]
        (letter,) = client.dead_letters()
    assert (letter.value, letter.error_type) == ("<order/>", "DecodingError")


# Loops


def test_output_may_be_sent_back_until_it_is_done(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()

    def halve(value: int) -> Any:
        return Output(value // 2, task="halve") if value > 1 else [value, current_message().group]

    with piped(domain, pipe_broker, halve, seen.take) as client:
        client.put(64, group="g")
        with client.start():
            assert seen.wait(1) == [[1, "g"]]


def test_loop_without_an_end_is_a_dead_letter_at_the_limit(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_HOPS == 1_000
    monkeypatch.setattr(runner_calls, "MOST_HOPS", 50)
    calls: list[int] = []

    def first(value: int) -> int:
        return value + 1

    def back(value: int) -> Any:
        calls.append(value)
        return Output(value, task="first")

    with piped(domain, MEMORY, first, {"method": back, "retries": 8}) as client:
        client.put(0)
        run_until(client, dead=1)
        (letter,) = client.dead_letters("back")
    assert (letter.error_type, letter.attempts, letter.value) == ("HopLimitError", 1, 51)
    assert len(calls) == 51
