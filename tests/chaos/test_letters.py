"""Dead letters by the thousand: redrives that die half-way lose none of them and send none back twice."""

from __future__ import annotations

import itertools
import signal

import pytest

from sqspipes import Reject, TaskClient
from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.ledger import wait_for


def bury(pipe: Pipe, groups: int, each: int) -> None:
    """Make a dead letter of each message."""

    def one(value: object) -> None:
        raise Reject("a bug")

    pipe.ledger.feed(groups=groups, each=each)
    with TaskClient(pipe.domain, **pipe.ledger.arguments) as client:
        client.register_tasks([{"method": one, "workers": 8}])
        with client.start():
            wait_for(
                lambda: pipe.ledger.dead() == pipe.ledger.messages,
                300,
                lambda: f"{pipe.ledger.dead()} of {pipe.ledger.messages} are dead",
            )


@pytest.mark.a_minute
@pytest.mark.timeout(800)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_redrives_that_are_killed_send_each_letter_back_once(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name)
    # Each in a group of its own: a letter has left its place in its group.
    bury(pipe, groups=5_000 if chaos.full else 300, each=1)
    points = list(itertools.product(("send", "ack"), ("before", "after")))
    for method, moment in points:
        requests = max(1, pipe.ledger.dead() // 100)
        point = method, moment, chaos.random.randint(1, requests)
        redrive = pipe.fleet.start("mending.py", point=point)
        assert redrive.process.wait(120) == -signal.SIGKILL, f"{point}: {redrive.log[-3000:]}"
    with TaskClient(pipe.domain, **pipe.arguments) as client:
        client.register_tasks([{"name": "one"}])

        def mended() -> bool:
            """Whether the last letters are back: those that a killed redrive had taken are hidden for a while."""
            client.redrive("one")
            return pipe.ledger.dead() == 0

        wait_for(mended, 120, lambda: f"{pipe.ledger.dead()} letters are left")
    pipe.fleet.start().said("runs on")
    seconds = pipe.ledger.settle(120)
    pipe.fleet.workers[-1].kill()
    chaos.settled("11 letters: redrives killed", broker_name, pipe, faults=len(points), seconds=seconds)
