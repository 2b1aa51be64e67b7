"""Retries that are due at once: calls, batches and async calls that fail again and again end nothing."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Chaos, MakePipe


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_calls_repeated_at_once_lose_nothing_and_end_no_process(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, options={"retries": None, "backoff": 0, "lease": 30.0}, fails=3)
    for _ in range(2):
        pipe.fleet.start("hasty.py")
    for worker in pipe.fleet.workers:
        worker.said("runs on")
    pipe.ledger.feed(groups=40, each=30 if chaos.full else 6)
    seconds = pipe.ledger.settle(120)
    assert len(pipe.fleet.running) == 2, pipe.fleet.log[-3000:]
    pipe.fleet.end()
    faults = pipe.fleet.log.count("again in 0.0 s")
    # Those that a failed one of a batch kept waiting are called again without a line of their own.
    assert faults >= 3 * pipe.ledger.messages
    assert pipe.ledger.dead() == 0
    chaos.settled("6 retries at once", broker_name, pipe, faults=faults, seconds=seconds)
