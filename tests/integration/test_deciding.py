"""What a task may decide by hand: Retry, Reject; and what it may know of the message it is called for."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from sqspipes import CurrentMessage, NoMessageError, OptionError, Reject, Retry, current_message
from tests.integration.support import Seen, piped, run_until

MEMORY = {"broker": "memory://"}


def test_retry_is_a_failed_attempt_with_a_delay_of_its_own(domain: str, pipe_broker: dict[str, Any]) -> None:
    times: list[float] = []

    def work(value: int) -> int:
        times.append(time.monotonic())
        if len(times) < 3:
            raise Retry(0.4)
        return value

    seen = Seen()
    with piped(domain, pipe_broker, {"method": work, "backoff": 60.0}, seen.take) as client:
        client.put(1)
        with client.start() as run:
            assert seen.wait(1) == [1]
    assert run.summary.failed == 2
    assert all(0.4 <= later - earlier < 30.0 for earlier, later in pairwise(times))


def test_retry_without_a_delay_waits_for_the_backoff(domain: str) -> None:
    asked: list[int] = []

    def backoff(attempt: int, error: BaseException) -> float:
        asked.append(attempt)
        return 0.0

    def work(value: int) -> int:
        if not asked:
            raise Retry
        return value

    seen = Seen()
    with piped(domain, MEMORY, {"method": work, "backoff": backoff}, seen.take) as client:
        client.put(1)
        with client.start():
            seen.wait(1)
    assert asked == [1]


def test_last_attempt_that_asks_for_another_is_a_dead_letter(domain: str) -> None:
    def work(value: int) -> None:
        raise Retry(0.0)

    with piped(domain, MEMORY, {"method": work, "retries": 2}) as client:
        client.put(1)
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert (letter.attempts, letter.error_type, letter.error) == (3, "Retry", "in 0 s, as asked")


def test_reject_is_a_dead_letter_at_once_with_the_reason(domain: str, pipe_broker: dict[str, Any]) -> None:
    def work(value: int) -> None:
        raise Reject("no such customer")

    with piped(domain, pipe_broker, work) as client:
        client.put(1)
        assert run_until(client, dead=1).failed == 1
        (letter,) = client.dead_letters("work")
    assert (letter.attempts, letter.error_type, letter.error) == (1, "Reject", "no such customer")


def test_decisions_stand_where_errors_would_stop_the_run(domain: str) -> None:
    calls: list[str] = []

    def work(value: str) -> None:
        calls.append(value)
        if value == "again" and len(calls) == 1:
            raise Retry(0.0)
        if value == "never":
            raise Reject("never")

    with piped(domain, MEMORY, work, on_error="raise") as client:
        client.put_many(["again", "never"], group="g")
        assert run_until(client, done=1, dead=1).reason == "stopped"
    assert calls == ["again", "again", "never"]


def test_delay_that_is_no_time_is_refused() -> None:
    with pytest.raises(OptionError, match="Retry: delay is -1: allowed is seconds, 0 or more"):
        Retry(-1)


def test_task_may_know_its_message(domain: str, pipe_broker: dict[str, Any]) -> None:
    known: list[CurrentMessage] = []

    def work(value: int) -> int:
        known.append(current_message())
        if len(known) == 1:
            raise ValueError("once more")
        return value

    def after(value: int) -> None:
        known.append(current_message())
        seen.take(value)

    seen, before = Seen(), time.time()
    with piped(domain, pipe_broker, {"method": work, "priorities": 2}, after, lease=30.0) as client:
        id = client.put(1, group="customer 7", priority=1)
        with client.start():
            seen.wait(1)
    first, second, third = known
    assert (first.id, first.group, first.priority, first.attempt) == (id, "customer 7", 1, 1)
    assert second.attempt == 2
    assert (third.group, third.priority, third.attempt) == ("customer 7", 1, 1)
    assert before - 0.001 <= first.first_put <= time.time()  # it travels in milliseconds
    assert third.first_put == first.first_put
    assert before + 5 < first.deadline < time.time() + 31


def test_generator_knows_its_message_as_long_as_it_yields(domain: str) -> None:
    def many(value: int) -> Any:
        for _ in range(3):
            yield current_message().id

    seen = Seen()
    with piped(domain, MEMORY, many, seen.take) as client:
        id = client.put(1, id="the one")
        with client.start():
            assert seen.wait(3) == [id] * 3


def test_outside_a_task_there_is_no_message(domain: str) -> None:
    with pytest.raises(NoMessageError, match="this thread is not called for a message"):
        current_message()


def test_two_calls_at_once_know_each_its_own(domain: str) -> None:
    together = threading.Barrier(2)

    def work(value: str) -> list[str]:
        together.wait(10)
        return [value, current_message().id]

    seen = Seen()
    with piped(domain, MEMORY, {"method": work, "workers": 2}, seen.take) as client:
        client.put_many(["a", "b"], id=str)
        with client.start():
            assert sorted(seen.wait(2)) == [["a", "a"], ["b", "b"]]
