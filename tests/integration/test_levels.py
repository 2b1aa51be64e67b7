"""Levels: higher ones first, a share of the calls for lower ones; or, if strict, none at all."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.brokers.base import Answer, Broker
from sqspipes.engine.pace import MOST_BEHIND
from sqspipes.messages.message import Delivery
from tests.integration.support import PATIENCE, Seen, passed, piped, until
from tests.unit.passing import Passing


@pytest.fixture
def passing() -> Iterator[Passing]:
    """A broker in memory with requests as small as SQS's."""
    with contextlib.closing(Passing(entries=10)) as broker:
        yield broker


@pytest.fixture
def any_passing(broker: Broker) -> Passing:
    """Each broker in turn."""
    return Passing(broker, entries=10)


class Gated(Seen):
    """Its task ``work`` notes the level of each value; the value "gate" waits until the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.gate = threading.Event(), threading.Event()

    def work(self, value: Any) -> None:
        if value == "gate":
            self.inside.set()
            passed(self.gate)
        self.take(value)

    def after_gate(self, count: int) -> list[Any]:
        """Open the gate and return the next values."""
        begun = len(self.values)
        self.gate.set()
        return self.wait(begun + 1 + count, 2 * PATIENCE)[begun + 1 :]


#: Work looks ahead as far as it may, on a machine however slow.
WORK: dict[str, Any] = {"name": "work", "rate": "1000000/s"}


def held(broker: Passing, domain: str, level: int) -> int:
    """Return how many messages of a level were taken in, at least."""
    return broker.taken[f"{domain}--work--p{level}.fifo" if level else f"{domain}--work.fifo"]


def gated(client: TaskClient, seen: Gated, priority: int) -> None:
    """Have a call made that waits at the gate."""
    client.put("gate", priority=priority)
    passed(seen.inside)


# A share of the calls


def test_of_ten_calls_one_is_a_lower_levels_and_those_take_turns(domain: str, any_passing: Passing) -> None:
    seen, broker = Gated(), any_passing
    work = {**WORK, "method": seen.work, "priorities": 3}
    with piped(domain, {"broker": broker}, work) as client, client.start():
        gated(client, seen, 2)
        client.put_many([2] * 280, priority=2)
        until(lambda: held(broker, domain, 2) >= 120, 2 * PATIENCE)
        for level in (1, 0):  # they are asked though the higher one has all the room
            client.put_many([level] * 20, priority=level)
            until(lambda level=level: held(broker, domain, level) >= 6)  # type: ignore[misc]
        order = seen.after_gate(100)
    assert all(set(order[start : start + 10]) != {2} for start in range(91))
    assert [level for level in order if level != 2][:6] in ([1, 0] * 3, [0, 1] * 3)
    assert order.count(2) >= 85


def test_lower_level_goes_on_for_as_long_as_a_higher_one_is_busy(domain: str, passing: Passing) -> None:
    """Also when it has been served for long: what it has in hand is filled up in time."""
    seen = Gated()
    work = {**WORK, "method": seen.work, "priorities": 2}
    with piped(domain, {"broker": passing}, work) as client, client.start():
        gated(client, seen, 1)
        client.put_many(["high"] * 1_000, priority=1)
        until(lambda: held(passing, domain, 1) >= 200)
        client.put_many(["low"] * 200)
        until(lambda: held(passing, domain, 0) >= 6)
        order = seen.after_gate(700)
    assert order.count("low") >= 50


def test_workers_of_a_task_share_the_turns(domain: str, passing: Passing) -> None:
    seen = Gated()
    work = {**WORK, "method": seen.work, "priorities": 2, "workers": 4}
    with piped(domain, {"broker": passing}, work) as client, client.start():
        gated(client, seen, 1)
        client.put_many(["gate"] * 3 + ["high"] * 150, priority=1)
        client.put_many(["low"] * 40)
        until(lambda: held(passing, domain, 0) >= 10 and held(passing, domain, 1) >= 110)
        seen.gate.set()
        order = [value for value in seen.wait(104) if value != "gate"]
    assert order.count("low") >= 8


def test_batch_of_a_lower_level_is_filled_with_its_own_first(domain: str, passing: Passing) -> None:
    batches: list[list[str]] = []
    inside, gate, done = threading.Event(), threading.Event(), threading.Semaphore(0)

    def work(values: list[str]) -> None:
        if "gate" in values:
            inside.set()
            passed(gate)
        batches.append(values)
        done.release(len(values))

    task = {**WORK, "method": work, "priorities": 2, "batch": 5, "batch_wait": 0.0}
    with piped(domain, {"broker": passing}, task) as client, client.start():
        client.put("gate", priority=1)
        passed(inside)
        client.put_many(["high"] * 100, priority=1)
        client.put_many(["low"] * 10)
        until(lambda: held(passing, domain, 0) >= 5 and held(passing, domain, 1) >= 60)
        gate.set()
        for _ in range(111):
            assert done.acquire(timeout=PATIENCE)
    lower = [place for place, batch in enumerate(batches) if batch[0] == "low"]
    assert lower[0] <= 10
    assert batches[lower[0]] == ["low"] * 5


# What they cost


class Polling(Passing):
    """Has several requests in flight, and polls that end only when something has come.

    ``requests`` counts what is asked, by action, but for the polls that the end of a run cuts.
    """

    def __init__(self) -> None:
        super().__init__(entries=10, requests_in_flight=8)
        self.requests: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        wait = self.limits.longest_wait if wait else 0.0
        with self._lock:
            self.open[queue] += 1
            self.most_open[queue] = max(self.most_open[queue], self.open[queue])
        found = super().receive(queue, count=count, wait=wait, lease=lease, attempt=attempt)
        with self._lock:
            self.open[queue] -= 1
            self.requests["receive"] -= bool(wait and not found)
        return found

    def _hook(self, action: str, queue: str, entries: Sequence[Any]) -> list[Answer] | None:
        with self._lock:
            self.requests[action] += 1
        return super()._hook(action, queue, entries)

    @property
    def cost(self) -> int:
        """The requests that messages cost."""
        return sum(self.requests[action] for action in ("receive", "send", "ack", "extend"))


@pytest.fixture
def polling() -> Iterator[Polling]:
    with contextlib.closing(Polling()) as broker:
        yield broker


class KeepingUp(Seen):
    """Its task ``take`` is through with all it was sent before it is sent more."""

    def __init__(self, broker: Polling, *queues: str) -> None:
        super().__init__()
        self._sending, self._sent = threading.Lock(), 0
        for queue in queues:
            broker.before["send", queue] = self._before_send

    def _before_send(self, entries: Sequence[Any]) -> None:
        with self._sending:
            self.wait(self._sent)
            self._sent += len(entries)


def passed_on(value: int) -> int:
    return value


def test_three_busy_levels_cost_a_quarter_of_a_request_for_each_message(
    domain: str, polling: Polling
) -> None:
    seen = Seen()
    work = {**WORK, "method": seen.take, "priorities": 3, "workers": 4, "linger": 5.0}
    with piped(domain, {"broker": polling}, work, lease=60.0) as client:
        for level in range(3):
            client.put_many(range(500), priority=level)
        polling.requests.clear()
        with client.start():
            seen.wait(1_500, 2 * PATIENCE)
    # A receive and an acknowledgement for ten are 0.2; sends are the next task's.
    assert polling.cost <= 0.27 * 1_500, polling.requests


@pytest.mark.parametrize(("strict", "linger"), [(False, 5.0), (True, 1.0)])
def test_two_tasks_with_three_busy_levels_cost_a_quarter_of_a_request_for_each_message(
    strict: bool, linger: float, domain: str, polling: Polling
) -> None:
    """Also when the second one keeps up with the first: what it asks for is worth asking for."""
    seen = KeepingUp(polling, "two", "two--p1", "two--p2")
    options: dict[str, Any] = {**WORK, "priorities": 3, "workers": 4, "linger": linger, "strict": strict}
    first, second = (
        {**options, "method": passed_on, "name": "one"},
        {**options, "method": seen.take, "name": "two"},
    )
    with piped(domain, {"broker": polling}, first, second, lease=60.0) as client:
        for level in range(3):
            client.put_many(range(500), priority=level)
        polling.requests.clear()
        with client.start():
            seen.wait(1_500, 2 * PATIENCE)
    # A receive, a send and an acknowledgement for ten, and of the second task no send.
    assert polling.cost <= 0.27 * 2 * 1_500, polling.requests


def test_queue_that_brings_little_is_asked_for_little_at_a_time(domain: str, polling: Polling) -> None:
    """Also when each answer is full: what is asked for keeps room from lower levels."""
    seen, resting = Seen(), threading.Event()
    first, second = {**WORK, "method": passed_on, "name": "one"}, {**WORK, "method": seen.take, "name": "two"}
    with piped(domain, {"broker": polling}, first, second, linger=5.0) as client, client.start():
        for ten in range(0, 140, 10):
            client.put_many(range(10))
            seen.wait(ten + 10)
            resting.wait(0.1)  # at least: the slower, the fewer
    assert polling.most_open[f"{domain}--two.fifo"] <= 5


# Strict


def test_strict_begins_nothing_of_a_lower_level_while_a_higher_one_is_held(
    domain: str, any_passing: Passing
) -> None:
    seen, broker = Gated(), any_passing
    work = {**WORK, "method": seen.work, "priorities": 3, "strict": True}
    with piped(domain, {"broker": broker}, work) as client, client.start():
        gated(client, seen, 0)
        for level, count in ((0, 5), (1, 2), (2, 3)):
            client.put_many([level] * count, priority=level)
            until(lambda level=level: held(broker, domain, level) >= 1 + (level == 0))  # type: ignore[misc]
        assert seen.after_gate(10) == [2] * 3 + [1] * 2 + [0] * 5


def test_strict_asks_the_levels_from_above_when_it_starts(domain: str, any_passing: Passing) -> None:
    seen = Seen()
    work = {**WORK, "method": seen.take, "priorities": 3, "strict": True}
    with piped(domain, {"broker": any_passing}, work) as client:
        for level in range(3):
            client.put_many([level] * 12, priority=level)
        with client.start():
            assert seen.wait(36) == [2] * 12 + [1] * 12 + [0] * 12


def test_strict_waits_until_the_higher_queue_answers_that_it_is_empty(domain: str, passing: Passing) -> None:
    seen, resting = Gated(), threading.Event()
    sent: list[str] = []

    def higher_comes_late(_: Sequence[Any]) -> None:
        if sent:
            until(lambda: sent[-1] in seen.values)
            resting.wait(0.2)  # for whoever would begin too early
        if sent == ["first"]:
            sent.append("second")
            client.put("second", priority=1)

    work = {**WORK, "method": seen.work, "priorities": 2, "strict": True, "workers": 2}
    with piped(domain, {"broker": passing}, work) as client:
        passing.before["receive", "work--p1"] = higher_comes_late
        with client.start():
            gated(client, seen, 0)
            client.put_many(["gate"] + ["low"] * 5)
            until(lambda: held(passing, domain, 0) >= 5)
            sent.append("first")
            client.put("first", priority=1)
            until(lambda: held(passing, domain, 1) == 1)
            seen.gate.set()
            order = seen.wait(9)
    assert [value for value in order if value != "gate"] == ["first", "second"] + ["low"] * 5


def test_strict_lets_a_lower_level_begin_beside_an_open_poll(domain: str, passing: Passing) -> None:
    seen = Seen()
    work = {**WORK, "method": seen.take, "priorities": 3, "strict": True}
    with piped(domain, {"broker": passing}, work) as client, client.start():
        for number in range(5):
            client.put(number)
            seen.wait(number + 1)  # a poll is open for longer


def test_strict_lets_a_lower_level_begin_beside_polls_that_followed_an_answer(
    domain: str, polling: Polling
) -> None:
    """Those of a busy higher level wait for messages, too: once something waits for a word, there is one."""
    seen = Seen()
    first, second = {**WORK, "method": passed_on, "name": "one"}, {**WORK, "method": seen.take, "name": "two"}
    levels: dict[str, Any] = {"priorities": 3, "strict": True}
    with (
        piped(domain, {"broker": polling}, {**first, **levels}, {**second, **levels}) as client,
        client.start(),
    ):
        for number in range(10):
            client.put_many([2] * 50, priority=2)
            seen.wait(51 * number + 50)
            client.put(0)
            seen.wait(51 * number + 51)


def test_strict_level_whose_calls_all_fail_stops_nobody(domain: str, passing: Passing) -> None:
    seen = Gated()

    def fail(value: Any) -> None:
        seen.work(value)
        if value == "low":
            raise ValueError

    work = {**WORK, "method": fail, "priorities": 2, "strict": True, "retries": 0}
    with piped(domain, {"broker": passing}, work) as client, client.start():
        client.put_many(["low"] * 30)  # from now on it takes in one message at a time
        seen.wait(30)
        gated(client, seen, 0)
        client.put("high", priority=1)
        client.put("next")
        assert sorted(seen.after_gate(2)) == ["high", "next"]


def test_strict_level_with_long_groups_stops_no_higher_one(domain: str, passing: Passing) -> None:
    seen, stored = Gated(), threading.Event()
    work = {**WORK, "method": seen.work, "priorities": 2, "strict": True}
    with piped(domain, {"broker": passing}, work) as client, client.start():
        gated(client, seen, 0)
        passing.before["receive", "work"] = lambda _: passed(stored)
        client.put_many(range(1_300), group=lambda number: str(number % 130))
        stored.set()
        until(lambda: client.status().levels[0].in_flight >= MOST_BEHIND * 10 / 9)  # of each ten one leads
        client.put("high", priority=1)
        until(lambda: held(passing, domain, 1) == 1)
        assert seen.after_gate(100)[0] == "high"


def test_strict_finishes_what_it_holds_in_a_pause(
    domain: str, passing: Passing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sqspipes")
    seen = Gated()
    work = {**WORK, "method": seen.work, "priorities": 2, "strict": True}
    with piped(domain, {"broker": passing}, work, control_interval=0.1) as client, client.start():
        gated(client, seen, 0)
        client.put_many(["low"] * 3)
        until(lambda: held(passing, domain, 0) == 4)
        client.put_many(["high"] * 300, priority=1)
        until(lambda: held(passing, domain, 1) >= 200)
        client.pause()
        until(lambda: "work is paused" in caplog.text)
        seen.gate.set()
        until(lambda: seen.values.count("low") == 3)
        client.resume()
