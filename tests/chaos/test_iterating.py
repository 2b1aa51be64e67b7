"""Scenario 6: a reader leaves its results in any way, under load, and nothing stays hidden or goes on."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Chaos, MakePipe
from tests.chaos.stops import LEASE, settle

WAYS = [
    "by_break",
    "by_break_without_a_block",
    "by_return",
    "by_exception",
    "by_interrupt",
    "by_interrupt_of_a_wait",
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_readers_that_leave_hide_nothing(chaos: Chaos, make_pipe: MakePipe, broker_name: str) -> None:
    pipe = make_pipe(broker_name, seconds=0.01, options={"lease": LEASE})
    ways = WAYS * (3 if chaos.full else 1)
    chaos.random.shuffle(ways)
    pipe.ledger.feed(groups=100, each=len(ways))
    pipe.fleet.start("leaver.py", ways=ways).end(120)
    for way in ways:
        assert f"left by {way}" in pipe.fleet.log
    seconds = settle(pipe)
    chaos.settled("6 stop: a reader leaves", broker_name, pipe, faults=len(ways), seconds=seconds)
