"""Levels under load: a lower one gets its share while a higher one never ends, and nothing of either is lost."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Chaos, MakePipe
from tests.chaos.ledger import wait_for

#: The lower level's part of the calls. The promise is a tenth; a death and the first receives take some of it.
LEAST_SHARE = 0.05


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_lower_level_gets_its_share_while_processes_die(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, levels=2, options={"lease": 5.0}, seconds=0.01)
    pipe.ledger.feed_shared_ids(groups=40, each=40 if chaos.full else 10)
    workers = [pipe.fleet.start() for _ in range(2)]
    for worker in workers:
        worker.said("runs on")
    wait_for(lambda: pipe.ledger.done() * 4 > pipe.ledger.messages, 60, lambda: f"{pipe.ledger.done()} done")
    workers[0].kill()
    seconds = pipe.ledger.settle(120)
    workers[1].kill()
    levels = [group.partition("/")[2] for task, group, _ in pipe.ledger.calls() if task == "one"]
    while_both = levels[: len(levels) - levels[::-1].index("1")]
    share = while_both.count("0") / len(while_both)
    assert share >= LEAST_SHARE, f"{while_both.count('0')} of {len(while_both)} calls"
    chaos.settled("12 levels under load", broker_name, pipe, faults=1, seconds=seconds)
