"""A message that is to be called again at once is called again by any thread, while its last call still ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes import BatchFailure, Reject, Retry
from tests.integration.support import drain_of, passed, piped


class Held(logging.Handler):
    """Holds the thread that logs up, at the line that has a text, until a call has begun."""

    def __init__(self, text: str, until: threading.Event) -> None:
        super().__init__()
        self.text, self.until = text, until

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage():
            passed(self.until)


@pytest.fixture
def handlers() -> Iterator[list[logging.Handler]]:
    added: list[logging.Handler] = []
    yield added
    for handler in added:
        logging.getLogger("sqspipes").removeHandler(handler)


def test_second_call_of_a_message_may_begin_before_the_first_one_has_ended(
    domain: str, pipe_broker: dict[str, Any], handlers: list[logging.Handler]
) -> None:
    calls: Counter[str] = Counter()
    again = {"a": threading.Event(), "b": threading.Event()}
    lock = threading.Lock()

    def work(values: list[str]) -> None:
        with lock:
            calls.update(values)
            first = calls[values[0]] == 1
        if first:
            raise Retry(0)
        for value in values:
            again[value].set()
        # There are two slots: "b" is called again once the first call, of both, is over.
        passed(again["b"])

    # The thread that ends the first call is held up after "a" may be called again, and before "b" may.
    handler = Held("work b failed", again["a"])
    logging.getLogger("sqspipes").addHandler(handler)
    handlers.append(handler)
    batch = {"method": work, "batch": 2, "batch_wait": 1.0, "workers": 2}
    with piped(domain, pipe_broker, batch) as client:
        client.put("a", id="a", group="a")
        client.put("b", id="b", group="b")
        with client.start() as run:
            passed(again["b"])
    assert run.summary.dead == 0
    assert calls == {"a": 2, "b": 2}


def test_no_attempt_of_many_messages_that_are_retried_at_once_ends_the_run(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    calls: Counter[int] = Counter()

    async def flaky(value: int) -> None:
        await asyncio.sleep(0)
        calls[value] += 1
        if calls[value] < 4:
            raise Retry(0)

    with piped(domain, pipe_broker, {"method": flaky, "workers": 20}, retries=None) as client:
        client.put_many(range(60))
        summary = client.run(drain=drain_of(pipe_broker))
    assert (summary.done, summary.failed) == (60, 180)


def test_batches_that_fail_in_part_without_a_backoff_keep_their_groups_in_order(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    done: list[int] = []
    lock = threading.Lock()
    calls: Counter[int] = Counter()

    def work(values: list[int]) -> None:
        with lock:
            calls.update(values)
            bad: dict[int, BaseException] = {}
            for place, value in enumerate(values):
                if value % 10 == 0:
                    bad[place] = Reject("no")
                elif value % 3 == 0 and calls[value] < 3:
                    bad[place] = Retry(0)
            stopped: set[int] = set()  # groups: what comes after a bad one is not handed on
            for place, value in enumerate(values):
                if place in bad:
                    stopped.add(value // 20)
                elif value // 20 not in stopped:
                    done.append(value)
        if bad:
            raise BatchFailure(bad)

    batch = {"method": work, "batch": 20, "batch_wait": 0.05, "workers": 4}
    with piped(domain, pipe_broker, batch, backoff=0, retries=None) as client:
        client.put_many((g * 20 + k for k in range(10) for g in range(8)), group=lambda value: value // 20)
        summary = client.run(drain=drain_of(pipe_broker))
    assert sorted(done) == sorted(g * 20 + k for g in range(8) for k in range(10) if (g * 20 + k) % 10)
    assert all(group == sorted(group) for g in range(8) if (group := [v for v in done if v // 20 == g]))
    assert (summary.done, summary.dead) == (72, 8)
