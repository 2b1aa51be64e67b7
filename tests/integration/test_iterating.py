"""run(iterate=True): the function's own objects, bounded, acknowledged when the next is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes import EmptyTaskOutput, Output, Results, TaskCallback
from tests.integration.support import Seen, in_flight, levels, piped, until, waiting

MEMORY = {"broker": "memory://"}


def same(value: Any) -> Any:
    """Hand a value on."""
    return value


def pair(value: Any) -> tuple[Any, object]:
    """Return something that JSON has no word for."""
    return value, object()


def test_loop_gets_what_the_last_task_returned(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, same, pair) as client:
        client.put_many(range(5))
        with client.run(iterate=True) as results:
            assert isinstance(results, Results)
            found = [next(results) for _ in range(5)]
    assert sorted(value for value, _ in found) == list(range(5))
    assert {type(result) for result in found} == {tuple}


def test_results_are_the_functions_own_objects(domain: str) -> None:
    made = []

    def work(value: int) -> object:
        made.append(object())
        return made[-1]

    with piped(domain, MEMORY, work) as client:
        client.put(1)
        (result,) = client.run(iterate=True, drain=True)
    assert result is made[0]


def test_loop_gets_each_value_of_a_generator(domain: str) -> None:
    def work(value: int) -> Iterator[int]:
        yield from range(value)

    with piped(domain, MEMORY, work) as client:
        client.put(3, group="g")
        assert list(client.run(iterate=True, drain=True)) == [0, 1, 2]


def test_results_that_end_the_line_are_left_out(domain: str) -> None:
    found = {0: None, 1: EmptyTaskOutput, 2: "two"}

    def work(value: int) -> Any:
        return found[value]

    with piped(domain, MEMORY, work) as client:
        client.put_many(range(3))
        assert list(client.run(iterate=True, drain=True)) == ["two"]


def test_task_in_the_middle_hands_on_first(domain: str, pipe_broker: dict[str, Any]) -> None:
    def middle(value: int) -> tuple[int, str]:
        return value, "middle"

    with piped(domain, pipe_broker, same, middle, {"method": same, "name": "last"}) as client:
        client.put(1, task="middle")
        with client.run("middle", iterate=True) as results:
            assert next(results) == (1, "middle")
            assert waiting(client, "last") == 1


def test_result_in_the_middle_must_be_json(domain: str) -> None:
    with piped(domain, MEMORY, pair, {"method": same, "name": "last"}) as client:
        client.put(1)
        assert list(client.run("pair", iterate=True, drain=True)) == []
        (letter,) = client.dead_letters("pair")
    assert "result of pair is not JSON: $[1] is an object" in letter.error


def test_source_alone_can_be_iterated_over(domain: str) -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)

    with piped(domain, MEMORY, numbers) as client:
        assert list(client.run(iterate=True, drain=True)) == [0, 1, 2]


def test_callback_runs_when_its_result_was_read(domain: str) -> None:
    called = Seen()

    def work(value: int) -> TaskCallback:
        return TaskCallback(value, called.take, (value,))

    with piped(domain, MEMORY, work) as client:
        client.put(1, group="g")
        client.put(2, group="g")
        with client.run(iterate=True) as results:
            assert next(results) == 1
            assert called.values == []
            assert next(results) == 2
            assert called.values == [1]


def test_loop_gets_the_value_of_an_output(domain: str) -> None:
    def work(value: int) -> Output:
        return Output((value, "x"), priority=1, group="g")

    with piped(domain, MEMORY, work) as client:
        client.put(1)
        assert list(client.run(iterate=True, drain=True)) == [(1, "x")]


def test_message_of_a_generator_is_acknowledged_after_its_last_value_was_read(domain: str) -> None:
    def work(value: int) -> Iterator[int]:
        yield from range(2)

    with piped(domain, MEMORY, work) as client:
        client.put(1)
        with client.run(iterate=True, drain=True) as results:
            assert [next(results), next(results)] == [0, 1]
            assert in_flight(client, "work") == 1
            assert next(results, "end") == "end"
        assert in_flight(client, "work") == 0


def test_slow_reader_slows_the_task(domain: str) -> None:
    calls = Seen()

    def work(value: int) -> int:
        calls.take(value)
        return value

    with piped(domain, MEMORY, work) as client:
        client.put_many(range(1_000))
        with client.run(iterate=True) as results:
            next(results)
            until(lambda: stands_still(calls))
            assert len(calls.values) < 300
            assert len([next(results) for _ in range(999)]) == 999


def stands_still(calls: Seen) -> bool:
    """Say whether no call is added for half a second."""
    before = len(calls.values)
    try:
        calls.wait(before + 1, 0.5)
    except AssertionError:
        return True
    return False


def test_message_is_acknowledged_when_the_next_result_is_asked_for(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put(1, group="g")
        client.put(2, group="g")
        with client.run(iterate=True) as results:
            assert next(results) == 1
            assert in_flight(client, "same") + waiting(client, "same") == 2
            assert next(results) == 2
            until(lambda: in_flight(client, "same") + waiting(client, "same") == 1)
        until(lambda: in_flight(client, "same") + waiting(client, "same") == 0)


def test_block_left_by_an_exception_gives_the_last_message_back(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put_many([1, 1, 1])

        def read() -> None:
            with client.run(iterate=True) as results:
                next(results)
                next(results)
                raise KeyError("reader")

        with pytest.raises(KeyError, match="reader"):
            read()
        until(lambda: waiting(client, "same") == 2)
        assert in_flight(client, "same") == 0


def test_block_left_normally_calls_the_last_message_done_and_stops_the_run(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put_many([1, 1, 1])
        with client.run(iterate=True) as results:
            next(results)
        until(lambda: levels(client, "same") == [2])
        assert client.status().levels[0].last_poll is None


def test_loop_left_by_break_stops_the_run_and_gives_the_rest_back(domain: str) -> None:
    with piped(domain, MEMORY, same) as client:
        client.put_many([1, 1, 1])
        for _ in client.run(iterate=True):
            break
        until(lambda: client.status().levels[0].last_poll is None)
        assert waiting(client, "same") >= 2
        assert in_flight(client, "same") == 0


def test_close_stops_the_run_and_ends_the_iterator(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put(1)
        results = client.run(iterate=True)
        assert next(results) == 1
        results.close()
        results.close()
        assert list(results) == []
        assert client.status().levels[0].last_poll is None
        assert (waiting(client, "same"), in_flight(client, "same")) == (0, 0)


def test_stop_ends_the_loop(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put(1)
        for _ in client.run(iterate=True):
            client.stop()


def test_error_that_ends_the_run_is_raised_in_the_loop(domain: str) -> None:
    def broken(value: int) -> None:
        raise OSError("disk")

    with piped(domain, MEMORY, {"method": broken, "on_error": "raise"}) as client:
        client.put(1)
        with pytest.raises(OSError, match="disk"):
            list(client.run(iterate=True))
        assert waiting(client, "broken") == 1


def test_two_loops_of_two_clients_go_side_by_side(domain: str) -> None:
    with piped(f"{domain}_a", MEMORY, same) as one, piped(f"{domain}_b", MEMORY, same) as other:
        one.put(1)
        other.put(2)
        with one.run(iterate=True) as ones, other.run(iterate=True) as others:
            assert (next(ones), next(others)) == (1, 2)
