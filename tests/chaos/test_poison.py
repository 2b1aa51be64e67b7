"""Poison by the thousand: each body runs as a value or is a dead letter with a reason, and nothing is lost."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from sqspipes import Broker, Run, TaskClient
from sqspipes.brokers.base import Depth
from tests.acceptance.support import eventually
from tests.chaos.bodies import bodies, drawn, newer, sent

#: Values that are put before the poison, behind it, and when it is gone.
GOOD = [f"good {number}" for number in range(60)]


class Pipe:
    """Three tasks that pass on what comes."""

    def __init__(self, domain: str, broker: Broker) -> None:
        self.calls: list[int] = []
        self.through: list[Any] = []
        tasks = (self.first, 1), (self.second, 2), (self.third, 1)
        self.client = TaskClient(
            domain, broker=broker, retries=1, backoff=0.0, lease=30.0, ignore_none=False
        ).register_tasks([{"method": method, "workers": 4, "priorities": n} for method, n in tasks])
        self.client.create_queues()
        self.queue = self.client.queue_names[0]

    def settled(self, run: Run, count: int, seconds: float) -> None:
        """Wait until so many have come through or are dead letters, or the run has ended."""
        eventually(
            lambda: run.over or len(self.through) + run.summary.dead >= count, seconds, f"{count} are settled"
        )
        assert not run.over

    def first(self, value: Any) -> Any:
        """Take what is in the poisoned queue."""
        self.calls.append(1)
        return value

    def second(self, value: Any) -> Any:
        """Take what the first one could hand on."""
        return value

    def third(self, value: Any) -> None:
        """Take what came through."""
        self.through.append(value)


def letters(client: TaskClient, broker: Broker) -> list[str]:
    """Check that the queues are empty but for dead letters, each with a reason; return the reasons."""
    for name in client.queue_names:
        assert name.endswith("--dead.fifo") or broker.depth(name) == Depth(0, 0), name
    found = list(client.dead_letters())
    assert sum(broker.depth(name).waiting for name in client.queue_names) == len(found)
    reasons = [f"{letter.task}: {letter.error_type}: {letter.error}" for letter in found]
    assert not [letter for letter in found if letter.error_type in ("", "MaxReceives") or not letter.error]
    return reasons


def canonical(value: Any) -> str:
    """Return a value as text to compare it by; of one that is nested too deeply, the same text."""
    with suppress(RecursionError):
        return json.dumps(value)
    return "deep"


def values(taken: list[str]) -> tuple[Counter[str], int]:
    """Return what the bodies hold, as far as JSON's own reader can tell, and how many are too deep for it here.

    Of those a worker, whose stack is shorter, may read some.
    """
    found: Counter[str] = Counter()
    deep = 0
    for body in taken:
        try:
            value = json.loads(body)
        except ValueError:
            continue
        except RecursionError:
            deep += 1
            continue
        own = isinstance(value, dict) and type(value.get("sqspipes")) is int
        found[canonical(value.get("value") if own else value)] += 1
    return found, deep


@pytest.mark.a_minute
@pytest.mark.timeout(400)
def test_bodies_by_the_thousand_run_or_are_dead_letters_with_a_reason(
    chaos: Any, domain: str, broker_name: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "sqspipes")  # thousands of tracebacks that nobody reads
    pipe, begun = Pipe(domain, broker), time.monotonic()
    count = (
        {"memory": 1_000, "sqlite": 10_000, "redis": 5_000, "sqs": 400}[broker_name] if chaos.full else 300
    )
    pipe.client.put_many(GOOD[:20])
    taken = sent(broker, pipe.queue, drawn(bodies, count, chaos.seed))
    pipe.client.put_many(GOOD[20:40])
    total = len(taken) + 40
    with pipe.client.start() as run:
        pipe.settled(run, total, 300)
        pipe.client.put_many(GOOD[40:])
        pipe.settled(run, total + 20, 20)
    reasons = letters(pipe.client, broker)
    assert len(pipe.through) + len(reasons) == total + 20
    assert len(pipe.calls) <= total + 20
    held, deep = values(taken)
    unknown = Counter(map(canonical, pipe.through)) - held - Counter(map(json.dumps, GOOD))
    assert sum(unknown.values()) <= deep, [text[:200] for text in unknown]
    found = len(pipe.through) + len(reasons)
    chaos.report(
        scenario="7 poison", broker=broker_name, messages=total + 20, faults=len(taken),
        lost=max(0, total + 20 - found), twice=max(0, found - total - 20), seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


def test_bodies_of_a_newer_version_are_left_for_a_process_that_can_read_them(
    chaos: Any, domain: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sqspipes")
    pipe = Pipe(domain, broker)
    taken = sent(broker, pipe.queue, drawn(newer, 200 if chaos.full else 30, chaos.seed))
    pipe.client.put_many(GOOD)
    with pipe.client.start() as run:
        eventually(lambda: len(pipe.through) == len(GOOD), 60, "the good ones are through")
        eventually(
            lambda: broker.depth(pipe.queue).in_flight > 0, 20, "a newer one was given back for a while"
        )
    assert run.summary.dead == 0
    assert sorted(pipe.through) == sorted(GOOD)
    depth = broker.depth(pipe.queue)
    assert depth.waiting + depth.in_flight == len(taken)
    assert "this sqspipes reads up to 1" in caplog.text
