"""Batch tasks: one call for many values, of any groups, with an outcome for each."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from sqspipes import (
    BatchFailure,
    NoMessageError,
    OptionError,
    SignatureError,
    Step,
    TaskClient,
    current_message,
)
from tests.integration.support import Seen, drain_of, passed, piped, run_until, until, waiting

MEMORY = {"broker": "memory://"}


class Store:
    """A batch task that keeps what it is given, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def __call__(self, values: list[Any]) -> list[Any]:
        self.batches.append(values)
        return values


def test_full_batches_are_called_at_once_and_the_rest_after_its_wait(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    store, seen = Store(), Seen()
    task = {"method": store, "name": "store", "batch": 20, "batch_wait": 0.5}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(50))
        with client.start():
            assert sorted(seen.wait(50)) == list(range(50))
    assert sorted(value for batch in store.batches for value in batch) == list(range(50))
    assert max(map(len, store.batches)) <= 20
    assert len(store.batches) <= 12  # the first receives take one message each


def test_message_alone_waits_no_longer_than_it_may(domain: str) -> None:
    store, seen = Store(), Seen()
    task = {"method": store, "name": "store", "batch": 20, "batch_wait": 0.3}
    with piped(domain, MEMORY, task, seen.take) as client, client.start():
        began = time.monotonic()
        client.put(1)
        seen.wait(1)
        assert 0.3 <= time.monotonic() - began < 5


def test_groups_come_in_order_and_several_of_one_go_together(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    store, seen = Store(), Seen()
    task = {"method": store, "name": "store", "batch": 8, "batch_wait": 0.2}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many([[group, n] for n in range(12) for group in "ab"], group=lambda value: value[0])
        with client.start():
            seen.wait(24)
    for group in "ab":
        stored = [n for batch in store.batches for name, n in batch if name == group]
        assert stored == list(range(12))
        assert [n for name, n in seen.values if name == group] == list(range(12))
    assert max(map(len, store.batches)) > 2


def test_nothing_returned_ends_all_lines(domain: str) -> None:
    sizes: list[int] = []

    def store(values: list[int]) -> None:
        sizes.append(len(values))

    with piped(
        domain, MEMORY, {"method": store, "batch": 10, "batch_wait": 0.1}, {"name": "after"}
    ) as client:
        client.put_many(range(30))
        run_until(client, "store", done=30)
        assert waiting(client, "after") == 0
    assert sum(sizes) == 30


def test_error_is_a_failure_of_all(domain: str, pipe_broker: dict[str, Any]) -> None:
    calls: list[list[int]] = []

    def store(values: list[int]) -> list[int]:
        calls.append(sorted(values))
        if len(calls) == 1:
            raise OSError("the database is away")
        return values

    seen = Seen()
    task = {"method": store, "batch": 5, "batch_wait": 1.0}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(5))
        with client.start() as run:
            assert sorted(seen.wait(5)) == list(range(5))
            until(lambda: run.summary.done == 10)
        assert run.summary.failed == len(calls[0])
    assert calls[0] == calls[1] or len(calls[0]) < 5


def test_batch_failure_fails_only_some(domain: str, pipe_broker: dict[str, Any]) -> None:
    def store(values: list[int]) -> list[int]:
        bad = {place: ValueError(f"bad {value}") for place, value in enumerate(values) if value % 2}
        if bad:
            raise BatchFailure(bad, values)
        return values

    seen = Seen()
    task = {"method": store, "batch": 10, "batch_wait": 0.3, "retries": 0}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(6))
        with client.start() as run:
            assert sorted(seen.wait(3)) == [0, 2, 4]
            until(lambda: run.summary.dead == 3)
        letters = sorted((letter.value, letter.error) for letter in client.dead_letters("store"))
    assert letters == [(1, "bad 1"), (3, "bad 3"), (5, "bad 5")]


def test_what_is_behind_a_failed_one_of_its_group_waits_for_it(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    batches: list[list[int]] = []
    go = threading.Event()

    def store(values: list[int]) -> list[int]:
        passed(go)
        batches.append(values)
        if 2 in values and sum(2 in batch for batch in batches) == 1:
            raise BatchFailure({values.index(2): ValueError("once")}, values)
        return values

    seen = Seen()
    task = {"method": store, "batch": 5, "batch_wait": 0.3}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(5), group="g")
        with client.start() as run:
            go.set()
            assert seen.wait(5) == list(range(5))
            until(lambda: run.summary.done == 10)
        assert (run.summary.failed, run.summary.dead) == (1, 0)
    called = [value for batch in batches for value in batch]
    assert called[: called.index(2)] == [0, 1]
    assert called[len(called) - called[::-1].index(2) :] == [3, 4]


def test_dead_letter_leaves_its_place_to_those_behind_it(domain: str, pipe_broker: dict[str, Any]) -> None:
    def store(values: list[int]) -> list[int]:
        if 1 in values:
            raise BatchFailure({values.index(1): ValueError("never")}, values)
        return values

    seen = Seen()
    task = {"method": store, "batch": 5, "batch_wait": 0.3, "retries": 0}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(4), group="g")
        with client.start() as run:
            assert seen.wait(3) == [0, 2, 3]
            until(lambda: run.summary.dead == 1)
        assert waiting(client, "store") == 0


def test_result_that_is_no_json_is_the_failure_of_its_value_alone(domain: str) -> None:
    def store(values: list[int]) -> list[Any]:
        return [{1, 2} if value == 1 else value for value in values]

    seen = Seen()
    task = {"method": store, "batch": 3, "batch_wait": 0.2}
    with piped(domain, MEMORY, task, seen.take) as client:
        client.put_many(range(3))
        with client.start() as run:
            assert sorted(seen.wait(2)) == [0, 2]
            until(lambda: run.summary.dead == 1)


@pytest.mark.parametrize(
    "wrong", [[1], "ab", {}, 7, BatchFailure({99: ValueError()}), BatchFailure({0: OSError()}, [])]
)
def test_result_that_fits_no_batch_is_a_failure_of_all(wrong: Any, domain: str) -> None:
    def store(values: list[int]) -> Any:
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong

    with piped(domain, MEMORY, {"method": store, "batch": 2, "batch_wait": 1.0, "retries": 0}) as client:
        client.put_many(range(3), group="g")
        with client.start() as run:
            until(lambda: run.summary.dead >= 2)
        assert {letter.error_type for letter in client.dead_letters()} == {"TypeError"}


def test_killed_batch_comes_back_after_its_lease(domain: str, tmp_path: Any) -> None:
    """The whole batch: what was called together is settled, or comes again, one by one."""
    url = {"broker": f"sqlite:///{tmp_path}/pipe.db"}
    begun, seen = threading.Event(), Seen()

    def stuck(values: list[int]) -> None:
        begun.set()
        threading.Event().wait(20)

    def store(values: list[int]) -> list[int]:
        return values

    with piped(
        domain, url, {"method": stuck, "name": "store", "batch": 4, "batch_wait": 0.1}, stop_timeout=0.1
    ) as one:
        one.put_many(range(4), group="g")
        with one.start():
            passed(begun)
    with (
        piped(domain, url, {"method": store, "batch": 4, "batch_wait": 0.1}, seen.take) as other,
        other.start(),
    ):
        assert seen.wait(4) == list(range(4))


def test_stop_gives_back_what_waits_for_a_batch(domain: str, pipe_broker: dict[str, Any]) -> None:
    def store(values: list[int]) -> None: ...

    with piped(domain, pipe_broker, {"method": store, "batch": 100, "batch_wait": 60.0}) as client:
        client.put_many(range(5))
        with client.start():
            until(lambda: sum(level.in_flight for level in client.status().levels) == 5)
        until(lambda: waiting(client, "store") == 5)


def test_drain_runs_the_last_batch_too(domain: str, pipe_broker: dict[str, Any]) -> None:
    store = Store()
    task = {"method": store, "name": "store", "batch": 100, "batch_wait": 0.2}
    with piped(domain, pipe_broker, task) as client:
        client.put_many(range(7))
        assert client.run(drain=drain_of(pipe_broker)).done == 7


def test_batch_has_no_message_of_its_own(domain: str) -> None:
    def store(values: list[int]) -> list[str]:
        with pytest.raises(NoMessageError):
            current_message()
        return ["none" for _ in values]

    client = TaskClient(domain, broker="memory://").register_tasks([{"method": store, "batch": 3}])
    client.put(1)
    with client.run(iterate=True) as results:
        assert next(results) == "none"
    client.close()


def test_trial_calls_with_a_batch_of_one(domain: str) -> None:
    store = Store()
    client = TaskClient(domain, broker="memory://").register_tasks(
        [{"method": store, "name": "s", "batch": 3}]
    )
    assert client.call(5) == [5]
    assert store.batches == [[5]]


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"batch": 1_001}, {"batch": "all"}, {"batch": 2, "batch_wait": 61}]
)
def test_batch_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"task 'print': batch(_wait)? is .*: allowed is"):
        TaskClient("app", broker="memory://").register_tasks([{"method": print, **options}])


def test_source_and_async_take_no_batches() -> None:
    def source() -> int:
        return 1

    async def work(values: list[int]) -> None: ...

    for task, kind in ((source, "a source"), (work, "async")):
        client = TaskClient("app", broker="memory://").register_tasks([{"method": task, "batch": 2}])
        with pytest.raises(SignatureError, match=rf"is {kind} and has a batch: allowed is def"):
            client.run()


@pytest.mark.parametrize("errors", [{}, {"a": ValueError()}, {0: "bad"}, [ValueError()]])
def test_batch_failure_names_places_and_errors(errors: Any) -> None:
    with pytest.raises(
        OptionError, match=r"BatchFailure: errors is .*: allowed is a dict of exceptions by index"
    ):
        BatchFailure(errors)


def test_failed_batch_of_one_group_is_called_again_in_order(domain: str, pipe_broker: dict[str, Any]) -> None:
    batches: list[list[int]] = []

    def store(values: list[int]) -> list[int]:
        batches.append(list(values))
        values.reverse()  # what a call does to the list, or to a value, is not seen by the next one
        if len(values) > 1 and sum(len(batch) > 1 for batch in batches) < 3:
            raise OSError("away")
        return batches[-1]

    seen = Seen()
    task = {"method": store, "batch": 4, "batch_wait": 0.3, "backoff": 0.05}
    with piped(domain, pipe_broker, task, seen.take) as client:
        client.put_many(range(10), group="g")
        with client.start():
            assert seen.wait(10) == list(range(10))
        assert list(client.dead_letters("store")) == []
    assert all(batch == sorted(batch) for batch in batches)


def test_failed_batch_of_one_group_dies_one_after_the_other(domain: str) -> None:
    def store(values: list[int]) -> None:
        raise OSError("away")

    with piped(domain, MEMORY, {"method": store, "batch": 3, "batch_wait": 0.1, "retries": 2}) as client:
        client.put_many(range(6), group="g")
        run_until(client, dead=6)
        letters = list(client.dead_letters())
    assert [letter.value for letter in sorted(letters, key=lambda each: each.died)] == list(range(6))
    assert {letter.attempts for letter in letters} == {3}


def test_step_rolls_back_each_value_of_a_batch(domain: str) -> None:
    class Store(Step):
        batch = 4
        batch_wait = 0.2
        retries = 0

        def consume(self, instructions: list[int]) -> list[int]:
            bad = {place: ValueError("odd") for place, value in enumerate(instructions) if value % 2}
            if bad:
                raise BatchFailure(bad, instructions)
            return instructions

        def rollback(self, instructions: int) -> None:
            self.produce(-instructions)

    seen = Seen()
    with piped(domain, MEMORY, Store, seen.take) as client:
        client.put_many(range(4))
        with client.start() as run:
            assert sorted(seen.wait(4)) == [-3, -1, 0, 2]
        assert run.summary.dead == 0


def test_wait_for_a_batch_begins_anew_with_each(domain: str) -> None:
    store = Store()
    seen = Seen()
    task = {"method": store, "name": "store", "batch": 2, "batch_wait": 1.0}
    with piped(domain, MEMORY, task, seen.take) as client, client.start():
        client.put(1)
        seen.wait(1)
        client.put_many([2, 3])
        assert sorted(seen.wait(3)) == [1, 2, 3]
        began = time.monotonic()
        client.put(4)
        seen.wait(4)
        assert time.monotonic() - began >= 0.9
