"""A wall clock that is set forward and back under a running pipe."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Chaos, MakePipe


@pytest.mark.timeout(240)
# Not on SQLite: its leases are in the wall clock's time, as several processes share them.
@pytest.mark.parametrize("broker_name", ["redis", "sqs"])
def test_clock_that_jumps_costs_no_lease_and_no_backoff(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    slow = {f"g{number}": 8.0 for number in range(4)}
    pipe = make_pipe(broker_name, options={"lease": 5.0, "backoff": 0.5}, slow=slow, failing=4)
    for _ in range(2):
        pipe.fleet.start("jumping.py").said("runs on")
    pipe.ledger.feed(groups=20, each=40 if chaos.full else 8)
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    assert "lease was lost" not in pipe.fleet.log
    failed = pipe.fleet.log.count("RuntimeError: the first call")
    assert failed == pipe.ledger.messages // 4
    # Each message was called once in each task, and those that failed once more: no lease was lost.
    assert pipe.ledger.repeated() == failed
    chaos.settled("8 clock jumps", broker_name, pipe, faults=pipe.ledger.messages, seconds=seconds)
