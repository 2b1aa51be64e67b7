"""Scenario 1: processes die at any moment, and at each moment that matters."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import pytest

from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.fleet import Worker
from tests.chaos.ledger import wait_for
from tests.servers import Forward, Proxy, Reply, Request

#: Points of the program: as a call begins, when its output has been yielded, when it is safe downstream.
OF_CALLS = [("call", "after"), ("yield", "after"), ("callback", "after")]
OF_SQLITE = [("receive", "after"), *itertools.product(("send", "ack", "extend"), ("before", "in", "after"))]

#: Points of requests: action, moment, and when the server gets what it has not seen.
ACTIONS = ("ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")
OF_REQUESTS = [
    *itertools.product(ACTIONS, ("before",), ("at once", "halfway", "late")),
    *itertools.product(ACTIONS, ("after",), ("at once",)),
]

#: Actions of which there is none before a call has lasted for half a lease.
LASTING = {"extend", "ChangeMessageVisibilityBatch"}

#: Seconds within which a victim dies: the machine may be crowded.
SOON = 60.0


@pytest.mark.a_minute
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_processes_killed_at_random_lose_nothing(chaos: Chaos, make_pipe: MakePipe, broker_name: str) -> None:
    pipe = make_pipe(broker_name, options={"lease": 5.0 if chaos.full else 2.0}, seconds=0.01)
    kills = 20 if chaos.full else 3
    for _ in range(3):
        pipe.fleet.start("dying.py")
    for worker in pipe.fleet.workers:
        worker.said("runs on")
    for number in range(kills):
        pipe.ledger.feed(groups=20, each=5)
        # Somewhere on the way of what was put just now, by the calls that it takes.
        calls = 100 * 3 * (number + chaos.random.random())
        wait_for(lambda calls=calls: called(pipe) >= calls, SOON, lambda: f"{called(pipe)} calls")
        chaos.random.choice(pipe.fleet.running).kill()
        pipe.fleet.start("dying.py")
    seconds = pipe.ledger.settle(120)
    end(pipe, survivors=3)
    chaos.settled("1 death: kill -9", broker_name, pipe, faults=kills, seconds=seconds)


def called(pipe: Pipe) -> int:
    return sum(1 for _ in pipe.ledger.calls())


def end(pipe: Pipe, survivors: int) -> None:
    """Nobody died of it but who was killed; those are killed now: nothing is left, so nothing can come of it."""
    assert len(pipe.fleet.running) == survivors, pipe.fleet.log[-3000:]
    for worker in pipe.fleet.running:
        worker.kill()


class Victim(Protocol):
    """A process that is going to die at its point."""

    point: Sequence[str]
    worker: Worker

    def dead(self, seconds: float) -> bool:
        """Wait so long for its death; say whether it came."""
        ...

    def let_go(self, when: str) -> None:
        """Let the server have what was frozen till now."""
        ...


class Suicide:
    """A process that kills itself."""

    def __init__(self, pipe: Pipe, point: Sequence[str], spared: int, **settings: Any) -> None:
        self.point = point
        self.worker = pipe.fleet.start("dying.py", point=point, spared=spared, **settings)

    def dead(self, seconds: float) -> bool:
        try:
            code = self.worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        assert code == -signal.SIGKILL, f"{self.point}: {self.worker.log[-3000:]}"
        return True

    def let_go(self, when: str) -> None:
        """It left nothing."""


class Frozen:
    """A process that is killed while a request of it is frozen, before the server sees it or before the answer.

    What the server has not seen goes on to it at ``release``: at once, halfway or late, as after a long way.
    """

    def __init__(self, pipe: Pipe, proxy: Proxy, point: Sequence[str], spared: int, **settings: Any) -> None:
        self.action, self.moment, self.release = self.point = point
        self._passes = itertools.count(-spared)
        self._lock = threading.Lock()
        self._started, self._caught, self._go, self._over = (threading.Event() for _ in range(4))
        pipe.through(proxy, self)
        arguments = {**pipe.arguments, "endpoint_url": proxy.url}
        self.worker = pipe.fleet.start("dying.py", arguments=arguments, **settings)
        self._started.set()

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        if request.action != self.action:
            return forward(request)
        reply = None if self.moment == "before" else forward(request)
        if reply is not None and self.action == "ReceiveMessage" and not reply.json.get("Messages"):
            return reply
        if not self._is_the_one():
            return reply or forward(request)
        self._started.wait()
        self.worker.kill()
        self._caught.set()
        self._go.wait()
        if reply is None:
            _forwarded_at_last(request, forward)
        self._over.set()
        return None

    def _is_the_one(self) -> bool:
        with self._lock:
            return next(self._passes) == 0

    def dead(self, seconds: float) -> bool:
        if not self._caught.wait(seconds):
            return False
        self.let_go("at once")
        return True

    def let_go(self, when: str) -> None:
        if when == self.release:
            self._go.set()
            # A poll may stay open for long: whom it gives something to is dead.
            assert self.action == "ReceiveMessage" or self._over.wait(SOON), f"{self.point}: not forwarded"


def _forwarded_at_last(request: Request, forward: Forward) -> None:
    """Forward, where the server may have closed the idle connection meanwhile."""
    try:
        forward(request)
    except OSError:
        forward(request)


def rounds(chaos: Chaos, points: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    """All points, some at a time; in the short round, one time some of them."""
    chaos.random.shuffle(points)
    size = 5 if chaos.full else 3
    for start in range(0, len(points) if chaos.full else 1, size):
        yield points[start : start + size]


def dead_or_fed(pipe: Pipe, victim: Victim) -> bool:
    """Wait for a death, and give more work if it does not come: others may have done all before this one began."""
    if victim.dead(SOON / 6):
        return True
    pipe.ledger.feed(groups=20, each=5)
    return False


def said(victim: Victim) -> str:
    return f"{victim.point} was not passed: {victim.worker.log[-3000:]}"


def die_and_settle(pipe: Pipe, victims: Sequence[Victim]) -> float:
    """Give the victims work, and others what they left; return the seconds that it took these."""
    pipe.ledger.feed(groups=20, each=5)
    for victim in victims:
        wait_for(partial(dead_or_fed, pipe, victim), SOON, partial(said, victim))
    halfway = pipe.ledger.done() + (pipe.ledger.messages - pipe.ledger.done()) / 2
    for _ in range(2):
        pipe.fleet.start("dying.py")
    wait_for(lambda: pipe.ledger.done() >= halfway, SOON, lambda: f"{pipe.ledger.done()} of {halfway}")
    for victim in victims:
        victim.let_go("halfway")
    seconds = pipe.ledger.settle(SOON)
    for victim in victims:
        victim.let_go("late")
    end(pipe, survivors=2)
    return seconds


@pytest.mark.every_broker
@pytest.mark.a_minute
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", ["sqlite", "sqs"])
def test_process_killed_at_a_point_loses_nothing(chaos: Chaos, make_pipe: MakePipe, broker_name: str) -> None:
    lease = 5.0 if chaos.full else 2.0
    pipe = make_pipe(broker_name, options={"lease": lease}, seconds=0.01)
    points: list[tuple[str, ...]] = [*OF_CALLS, *(OF_SQLITE if broker_name == "sqlite" else OF_REQUESTS)]
    seconds, deaths = 0.0, 0
    with contextlib.ExitStack() as stack:
        for some in rounds(chaos, points):
            victims: list[Victim] = []
            for point in some:
                lasting = {"seconds": 0.8 * lease} if point[0] in LASTING else {}
                spared = 0 if lasting else chaos.random.randrange(3)
                if len(point) == 2:
                    victims.append(Suicide(pipe, point, spared, **lasting))
                else:
                    proxy = stack.enter_context(
                        contextlib.closing(Proxy(pipe.ledger.arguments["endpoint_url"]))
                    )
                    victims.append(Frozen(pipe, proxy, point, spared, **lasting))
            seconds = max(seconds, die_and_settle(pipe, victims))
            deaths += len(victims)
    chaos.settled("1 death: at a point", broker_name, pipe, faults=deaths, seconds=seconds)
