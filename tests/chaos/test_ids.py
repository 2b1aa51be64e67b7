"""Ids that messages share: in other groups and at other levels the same id is another message."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Chaos, MakePipe
from tests.chaos.ledger import wait_for


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_ids_shared_by_groups_and_levels_lose_nothing_when_processes_die(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    lease = 5.0 if chaos.full else 2.0
    pipe = make_pipe(broker_name, levels=2, options={"lease": lease}, seconds=0.01, rejecting=5)
    for _ in range(2):
        pipe.fleet.start("dying.py")
    for worker in pipe.fleet.workers:
        worker.said("runs on")
    kills = 6 if chaos.full else 2
    for _ in range(kills):
        done = pipe.ledger.done()
        pipe.ledger.feed_shared_ids(groups=5, each=5)
        wait_for(lambda done=done: pipe.ledger.done() > done + 5, 60, lambda: pipe.fleet.log[-3000:])
        chaos.random.choice(pipe.fleet.running).kill()
        pipe.fleet.start("dying.py")
    seconds = pipe.ledger.settle(120)
    for worker in pipe.fleet.running:
        worker.kill()
    assert pipe.ledger.dead() == 20 * kills
    chaos.settled("1 death: shared ids", broker_name, pipe, faults=kills, seconds=seconds)
