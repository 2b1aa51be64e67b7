"""Parked: messages that fail and fail, more of them than a process keeps, stop nobody and lose no attempt."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sqspipes import BatchFailure
from sqspipes.brokers.base import Broker
from sqspipes.calls.held import Held
from sqspipes.defaults import MAX_RECEIVES
from sqspipes.engine.attempts import MOST_REMEMBERED, Attempts
from sqspipes.engine.pace import MOST_BEHIND, MOST_PARKED
from tests.builders import delivery_of, held_of
from tests.integration.support import PATIENCE, Seen, passed, piped, until
from tests.unit.passing import Passing

#: The backoff of what fills the bound, and of all else.
LONG, SHORT = 3_000.0, 0.01


class Failing(Seen):
    """Its task fails for values that begin with "filler" and "bad": the first come again after a long time."""

    def __init__(self) -> None:
        super().__init__()
        self.tries: Counter[str] = Counter()
        self.passing: dict[str, int] = {}  #: of values that succeed at another try than the first
        self._lock = threading.Lock()

    def try_once(self, value: str) -> None:
        with self._lock:
            self.tries[value] += 1
            too_early = self.tries[value] < self.passing.get(value, 1)
        if value.startswith(("filler", "bad")) or too_early:
            raise ValueError(value)

    def take(self, value: str) -> None:
        self.try_once(value)
        super().take(value)

    def take_whole(self, values: list[str]) -> None:
        for value in values:
            self.try_once(value)
        for value in values:
            super().take(value)

    async def take_on_a_loop(self, value: str) -> None:
        self.take(value)

    def take_batch(self, values: list[str]) -> None:
        errors: dict[int, BaseException] = {}
        for place, value in enumerate(values):
            try:
                self.take(value)
            except ValueError as error:
                errors[place] = error
        if errors:
            raise BatchFailure(errors)

    def task(self, kind: str) -> dict[str, Any]:
        methods: dict[str, Callable[..., Any]] = {
            "plain": self.take,
            "async": self.take_on_a_loop,
            "batch": self.take_batch,
            "whole batch": self.take_whole,
        }
        batch = {"batch": 5, "batch_wait": 0.0} if "batch" in kind else {}
        return {"method": methods[kind], "name": "take", "backoff": backoff, "workers": 4, **batch}


def backoff(attempt: int, error: BaseException) -> float:
    """Return the seconds until the next call."""
    return LONG if str(error).startswith("filler") else SHORT


@pytest.fixture
def passing() -> Iterator[Passing]:
    """A broker in memory that tells for how long leases are extended."""
    with contextlib.closing(Passing()) as broker:
        yield broker


def extended(broker: Passing, task: str) -> list[float]:
    """Return a list of the seconds of all extends to come."""
    found: list[float] = []

    def extend(leases: Sequence[tuple[str, float]]) -> None:
        found.extend(seconds for _, seconds in leases)

    broker.before["extend", task] = extend
    return found


@pytest.mark.parametrize("kind", ["plain", "async", "batch"])
def test_what_fails_beyond_the_bound_waits_at_the_broker_and_keeps_its_attempts(
    domain: str, passing: Passing, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    seen, begun, go_on = Failing(), threading.Event(), threading.Event()
    caplog.set_level(logging.INFO, logger="sqspipes")

    def last(value: str) -> None:
        begun.set()
        passed(go_on)

    bad = [f"bad {number}" for number in range(5)]
    task = {**seen.task(kind), "retries": 5}
    with piped(domain, {"broker": passing}, task, last) as client:
        seconds = extended(passing, "take")
        client.put_many([f"filler {number}" for number in range(MOST_PARKED + 50)])
        client.put("job", task="last")
        with client.start() as run:
            passed(begun)  # a suspect would wait for this one
            until(lambda: run.summary.failed == MOST_PARKED + 50, 2 * PATIENCE)
            client.put_many(bad)
            client.put_many([f"good {number}" for number in range(100)])
            seen.wait(100)
            until(lambda: run.summary.dead == 5)
            go_on.set()
        letters = [(letter.value, letter.attempts) for letter in client.dead_letters()]
    assert sorted(letters) == [(value, 6) for value in bad]
    assert [seen.tries[value] for value in bad] == [6] * 5
    waits = [each for each in seconds if each > 60]
    assert len(waits) == 50 and all(LONG - PATIENCE < each <= LONG for each in waits)
    loud = [one.getMessage() for one in caplog.records if one.levelno > logging.INFO]
    others = [text for text in loud if " failed, attempt " not in text and " is a dead letter " not in text]
    assert len(others) == 1
    assert "take: 1001 messages that failed" in others[0].replace(",", "", 1)


def test_group_beyond_the_bound_keeps_its_order(domain: str, broker: Broker) -> None:
    check_order(domain, broker, Failing(), "plain")


def test_group_in_batches_beyond_the_bound_keeps_its_order(domain: str, passing: Passing) -> None:
    check_order(domain, passing, Failing(), "whole batch")


def check_order(domain: str, inner: Broker, seen: Failing, kind: str) -> None:
    """What waits behind messages that fail is bounded, too, and others go on."""
    broker = Passing(inner, entries=10)
    groups = 14 * MOST_BEHIND // 100  # of ten messages, nine of which wait
    seen.passing["last 0"] = 4
    task = {**seen.task(kind), "workers": 16}
    with piped(domain, {"broker": broker}, task) as client:
        kinds = ("filler",) if kind == "whole batch" else ("filler", "fine")
        # Something succeeds in between: where all fail, one message is taken in at a time.
        heads = [f"{kind} {group} 0" for group in range(groups) for kind in kinds]
        rest = [f"behind {group} {n}" for n in range(1, 10) for group in range(groups)]
        client.put_many(
            heads + rest, group=lambda value: None if value.startswith("fine") else value.split()[1]
        )
        with client.start():
            until(lambda: len([value for value in seen.tries if value.startswith("filler")]) == groups, 45.0)
            client.put_many([f"last {number}" for number in range(10)], group="last")
            client.put_many([f"good {number}" for number in range(20)])
            order = seen.wait(groups * (len(kinds) - 1) + 30, 2 * PATIENCE)
    assert [value for value in order if value.startswith("last")] == [f"last {n}" for n in range(10)]
    assert seen.tries["last 0"] == 4
    assert not any(value.startswith("behind") for value in order)


def test_message_without_end_is_not_given_back_until_the_broker_buries_it(
    domain: str, passing: Passing
) -> None:
    seen = Failing()
    seen.passing["stubborn"] = 2 * MAX_RECEIVES
    task = {**seen.task("plain"), "retries": None}
    with piped(domain, {"broker": passing}, task) as client:
        client.put_many([f"filler {number}" for number in range(MOST_PARKED + 1)])
        with client.start() as run:
            until(lambda: run.summary.failed > MOST_PARKED, 2 * PATIENCE)
            client.put("stubborn")
            assert seen.wait(1, 2 * PATIENCE) == ["stubborn"]
        assert not list(client.dead_letters())
        assert run.summary.failed == MOST_PARKED + 2 * MAX_RECEIVES


def test_only_the_newest_attempts_are_remembered() -> None:
    attempts = Attempts()
    held = held_of()
    held.failures = 3
    keys = [(held.delivery.queue, f"m{number}") for number in range(MOST_REMEMBERED + 1)]
    for key in keys:
        held.key = key
        attempts.remember(held)
    remembered = [attempts.of(delivery_of(id=key[1])).failures for key in keys]
    assert remembered == [0] + [3] * MOST_REMEMBERED


def test_message_that_was_given_back_here_is_no_suspect_and_one_received_by_others_is() -> None:
    def received(receives: int, given_back: int) -> Held:
        delivery = delivery_of(receives=receives)
        return Held(delivery, held_of().message, 0, 60.0, 0.0, 0.0, given_back, given_back)

    assert not received(9, 8).suspect
    assert not received(11, 8).suspect
    assert received(12, 8).suspect
    assert received(2, 1).redelivered is False
