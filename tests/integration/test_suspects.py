"""Suspects: a message that was received often runs alone if it can, and holds up no process."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

import pytest

from sqspipes.brokers.base import Broker
from tests.integration.support import PATIENCE, Seen, passed, piped, until
from tests.unit.passing import Passing

_attempts = itertools.count()


@pytest.fixture
def passing() -> Iterator[Passing]:
    """A broker in memory that a test may look into."""
    with contextlib.closing(Passing()) as broker:
        yield broker


def redelivered(broker: Broker, queue: str, times: int) -> None:
    """Receive what is in a queue and give it back, so that it has been received so often."""
    for _ in range(times):
        found = broker.receive(queue, count=10, wait=0.0, lease=60.0, attempt=f"a{next(_attempts)}")
        assert found
        broker.extend(queue, [(one.receipt, 0.0) for one in found])


def test_suspects_do_not_wait_for_a_long_call_for_ever(
    domain: str, passing: Passing, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), Seen()

    def last(value: str) -> None:
        begun.set()
        passed(go_on)

    tasks = [{"method": last}, {"method": seen.take, "name": "quick", "workers": 8}]
    with piped(domain, {"broker": passing}, *tasks) as client:
        suspects = [client.put(f"suspect {number}", task="quick") for number in range(6)]
        redelivered(passing, f"{domain}--quick.fifo", 3)
        job = client.put("job", task="last")
        # The suspects come when the long call runs.
        passing.before["receive", "quick"] = lambda _: passed(begun)
        with client.start():
            client.put_many(range(50), task="quick")
            assert len(seen.wait(56)) == 56
            go_on.set()
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert f"last {job}" in lines[0]
    assert any(f"quick {suspect}" in lines[0] for suspect in suspects)


def test_suspect_that_runs_for_long_holds_up_nobody(
    domain: str, passing: Passing, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), Seen()

    def last(value: str) -> None:
        begun.set()
        passed(go_on)

    async def quick(value: int) -> None:
        seen.take(value)

    with piped(domain, {"broker": passing}, last, quick) as client:
        suspect = client.put("suspect", task="last")
        redelivered(passing, f"{domain}--last.fifo", 3)
        with client.start():
            passed(begun)
            client.put_many(range(50), task="quick")
            seen.wait(50)
            go_on.set()
            until(lambda: client.status().levels[0].in_flight == 0, PATIENCE)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1 and f"last {suspect}" in lines[0]
