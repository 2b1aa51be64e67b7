"""Linger: how long a message waits at a hop for others, so that requests are full; never longer than it must."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.defaults import LONGEST_LINGER
from sqspipes.tasks.pipe import RunOptions
from tests.integration.support import PATIENCE, until
from tests.unit.passing import Passing

Requests = dict[tuple[str, str], list[int]]


@pytest.fixture
def requests() -> Requests:
    """The entries of each request, by action and task."""
    return defaultdict(list)


@pytest.fixture
def broker(requests: Requests) -> Iterator[Passing]:
    with contextlib.closing(Passing(entries=10)) as broker:
        for key in itertools.product(("send", "ack"), ("one", "two")):
            broker.before[key] = lambda entries, key=key: requests[key].append(len(entries))  # type: ignore[misc]
        yield broker


def one(value: Any) -> Any:
    return value


def two(value: Any) -> None:
    """The end."""


def pipe(broker: Passing, **options: Any) -> TaskClient:
    return TaskClient("linger", broker=broker, **options).register_tasks([one, two])


def acknowledged(requests: Requests, task: str) -> int:
    return sum(requests["ack", task])


def test_request_that_is_full_waits_for_nothing(broker: Passing, requests: Requests) -> None:
    client = pipe(broker, linger=LONGEST_LINGER)
    client.put_many(range(20))
    requests.clear()
    began = time.monotonic()
    with client.start():
        until(lambda: acknowledged(requests, "two") == 20)
    assert time.monotonic() - began < LONGEST_LINGER
    assert requests["send", "two"] == [10, 10]


def test_message_waits_for_others_no_longer_than_it_must(broker: Passing, requests: Requests) -> None:
    client = pipe(broker, linger=0.2)
    sent: list[float] = []
    note = broker.before["send", "two"]
    broker.before["send", "two"] = lambda entries: sent.append(time.monotonic()) or note(entries)  # type: ignore[func-returns-value]
    with client.start():
        began = time.monotonic()
        client.put("alone")
        until(lambda: acknowledged(requests, "two") == 1)
    assert 0.2 <= sent[0] - began < PATIENCE


def test_task_has_a_linger_of_its_own(broker: Passing, requests: Requests) -> None:
    client = TaskClient("linger", broker=broker, linger=LONGEST_LINGER).register_tasks(
        [{"method": one, "linger": 0}, {"method": two, "linger": 0}]
    )
    with client.start():
        began = time.monotonic()
        client.put("alone")
        until(lambda: acknowledged(requests, "two") == 1)
    assert time.monotonic() - began < LONGEST_LINGER


def test_stop_sends_and_acknowledges_at_once_what_waits(broker: Passing, requests: Requests) -> None:
    client = pipe(broker, linger=LONGEST_LINGER)
    began = time.monotonic()
    with client.start("one") as run:
        client.put("alone")
        until(lambda: run.summary.done == 1)
    assert time.monotonic() - began < LONGEST_LINGER
    assert requests["send", "two"] == [1]
    assert requests["ack", "one"] == [1]


def test_acknowledgement_of_a_group_does_not_wait_as_long_as_others(
    broker: Passing, requests: Requests
) -> None:
    acked: dict[str, float] = {}

    def note(entries: Sequence[Any]) -> None:
        acked.setdefault("at", time.monotonic())

    seconds = []
    for group in ("a", None):
        acked.clear()
        client = pipe(broker, linger=0.5)
        broker.before["ack", "two"] = note  # type: ignore[assignment]
        with client.start("two") as run:
            client.put("alone", task="two", group=group)
            until(lambda run=run: run.summary.done == 1)  # type: ignore[misc]
            done = time.monotonic()
            until(lambda: "at" in acked)
        seconds.append(acked["at"] - done)
    assert seconds[0] < seconds[1]
    assert seconds[1] > 1.0


@pytest.mark.parametrize("group", [None, "a"])
def test_run_that_drains_lets_nothing_linger_once_there_is_nothing_left_to_call(
    group: str | None, broker: Passing, requests: Requests
) -> None:
    client = pipe(broker, linger=LONGEST_LINGER)
    began = time.monotonic()
    for value in range(3):
        client.put(value, group=group)
    assert client.run(drain=True).done == 6
    assert time.monotonic() - began < LONGEST_LINGER


def test_run_that_drains_goes_on_filling_requests_while_there_is_something_to_call(
    broker: Passing, requests: Requests
) -> None:
    client = pipe(broker, linger=LONGEST_LINGER)
    client.put_many(range(100))
    requests.clear()
    assert client.run(drain=True).done == 200
    assert len(requests["send", "two"]) <= 20


def test_run_beside_one_that_drains_lets_nothing_linger_either(broker: Passing, requests: Requests) -> None:
    client = pipe(broker, linger=LONGEST_LINGER)
    client.put("alone")
    plan = client._checked(RunOptions(None, None, 0, False, None, None, None, True)).beside()
    began = time.monotonic()
    with client._run(plan).start():
        until(lambda: acknowledged(requests, "two") == 1)
    assert time.monotonic() - began < LONGEST_LINGER
