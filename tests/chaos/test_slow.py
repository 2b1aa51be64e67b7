"""Scenario 4: calls that take long, processes that stand still, and one whose network is cut."""

from __future__ import annotations

import contextlib
import fcntl
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.fleet import Worker
from tests.chaos.ledger import wait_for
from tests.servers import Behaviour, Forward, Proxy, Reply, Request

BROKERS = ("sqlite", "redis", "sqs")
LEASE = 5.0
OPTIONS = {"lease": LEASE}


def begun(pipe: Pipe, worker: Worker, group: str = "") -> int:
    """How many calls of task two have begun in a process; of all groups, or of one."""
    journal = pipe.ledger.journal
    lines = [line.split(" ") for line in journal.read_text().splitlines()] if journal.exists() else []
    mine = [line for line in lines if line[0] == "two" and int(line[3]) == worker.process.pid]
    return sum(line[1] == group or not group for line in mine)


def wait_for_calls(pipe: Pipe, worker: Worker, count: int, group: str = "") -> None:
    wait_for(lambda: begun(pipe, worker, group) >= count, 60, lambda: f"{begun(pipe, worker)}\n{worker.log}")


def waiting_for_two(pipe: Pipe) -> int:
    """How many messages the queue of task two holds, in flight or not."""
    depth = pipe.ledger.broker.depth(f"{pipe.domain}--two.fifo")
    return depth.waiting + depth.in_flight


def wait_until(moment: float) -> None:
    """Let a fault last until a moment."""
    wait_for(lambda: time.monotonic() >= moment, 120, lambda: "time stands still")


def frozen(worker: Worker, database: Path) -> float:
    """Stop a process with SIGSTOP, not while it has the SQLite file to itself; return when."""
    lock = Path(f"{database}-lock")
    while True:
        worker.send(signal.SIGSTOP)
        with lock.open() if lock.exists() else contextlib.nullcontext() as file:
            try:
                if file is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return time.monotonic()
            except BlockingIOError:
                worker.send(signal.SIGCONT)


class Silence:
    """A network that is cut: a request waits for an answer until ``back``, and then fails."""

    def __init__(self) -> None:
        self.back = threading.Event()

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        self.back.wait(60)
        return None


def receives_first() -> Behaviour:
    """The network comes back for receives before it does for what keeps or deletes a message."""
    received = threading.Event()

    def behave(request: Request, forward: Forward) -> Reply | None:
        if request.action in ("ChangeMessageVisibilityBatch", "DeleteMessageBatch") and not received.is_set():
            return None
        reply = forward(request)
        if request.action == "ReceiveMessage" and reply.json.get("Messages"):
            received.set()
        return reply

    return behave


@pytest.mark.a_minute
@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", BROKERS)
def test_call_that_outlasts_its_lease_is_made_once(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    leases, each = (5, 2) if chaos.full else (1.2, 1)
    pipe = make_pipe(broker_name, options=OPTIONS)
    pipe.ledger.feed(groups=6, each=each)
    pipe.fleet.start(tasks=["one", "three"])
    for _ in range(2):
        pipe.fleet.start(tasks=["two"], seconds=leases * LEASE, workers=8)
    seconds = pipe.ledger.settle(120)
    pipe.fleet.end()
    chaos.settled("4 slow: calls of five leases", broker_name, pipe, faults=6 * each, seconds=seconds)
    assert pipe.ledger.repeated() == 0
    assert "lost" not in pipe.fleet.log


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", BROKERS)
def test_process_that_stood_still_changes_nothing_when_it_goes_on(
    chaos: Chaos, make_pipe: MakePipe, tmp_path: Path, broker_name: str
) -> None:
    leases = 3 if chaos.full else 1
    pipe = make_pipe(broker_name, options=OPTIONS, workers=4)
    pipe.fleet.start(tasks=["one", "three"])
    sleeper = pipe.fleet.start(tasks=["two"], seconds=leases * LEASE - 1)
    pipe.ledger.feed(groups=16, each=2)
    wait_for_calls(pipe, sleeper, 4)
    since = frozen(sleeper, tmp_path / "pipe.db")
    held = next(group for task, group, _ in pipe.ledger.calls() if task == "two")
    # When the sleeper goes on, one of its messages is being worked on, and all others are done.
    other = pipe.fleet.start(tasks=["two"], slow={held: (leases + 2) * LEASE})
    wait_for_calls(pipe, other, 1, held)
    wait_for(lambda: waiting_for_two(pipe) == 2, 60, lambda: f"{waiting_for_two(pipe)} left")
    wait_until(since + leases * LEASE)
    sleeper.send(signal.SIGCONT)
    handed_on = "was handed on, but its lease was lost"
    wait_for(lambda: sleeper.log.count(handed_on) == 4, 30, lambda: sleeper.log)
    assert begun(pipe, other, held) == 1, "the other one was too fast to see what became of its delivery"
    assert waiting_for_two(pipe) == 2
    seconds = pipe.ledger.settle(120)
    pipe.fleet.end()
    chaos.settled("4 slow: SIGSTOP", broker_name, pipe, faults=1, seconds=seconds)
    assert pipe.ledger.repeated() >= 4


@pytest.mark.timeout(240)
def test_process_whose_network_was_cut_gets_its_own_messages_back(chaos: Chaos, make_pipe: MakePipe) -> None:
    pipe = make_pipe("sqs", options=OPTIONS, workers=8)
    cut = (2.0 if chaos.full else 1.1) * LEASE
    # Calls that end while the network is cut, after that, and after the lease that follows.
    slow = {"g0": cut - 3, "g1": cut + 1, "g2": cut + LEASE + 1}
    silence = Silence()
    with contextlib.closing(Proxy(pipe.ledger.arguments["endpoint_url"])) as way:
        pipe.through(way)
        arguments = {**pipe.arguments, "endpoint_url": way.url}
        pipe.fleet.start(tasks=["one", "three"])
        lonely = pipe.fleet.start(tasks=["two"], seconds=0.2, slow=slow, arguments=arguments)
        pipe.ledger.feed(groups=6, each=3)
        for group in slow:
            wait_for_calls(pipe, lonely, 1, group)
        before = len(way.requests())
        pipe.through(way, silence)
        way.cut()
        wait_until(time.monotonic() + cut)
        faults = len(way.requests()) - before
        pipe.through(way, receives_first())
        silence.back.set()
        seconds = pipe.ledger.settle(120)
        pipe.fleet.end()
    chaos.settled("4 slow: network cut", "sqs", pipe, faults=faults, seconds=seconds)
    assert pipe.ledger.repeated() == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("broker_name", BROKERS)
def test_call_that_never_returns_is_told_of_and_does_not_keep_a_stop(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, options={**OPTIONS, "stop_timeout": 2.0})
    pipe.fleet.start(tasks=["one", "three"])
    settings = {"tasks": ["two"], "slow": {"g0": 1e6}, "watched": 1.0}
    stuck = pipe.fleet.start("watched.py", **settings)
    pipe.ledger.feed(groups=3, each=2)
    stuck.said("status: two runs for ")
    wait_for(lambda: pipe.ledger.done() == 4, 30, lambda: f"{pipe.ledger.done()} of 4 done")
    if chaos.full:
        stuck.said("has not returned", 60)
        told = re.findall(r"WARNING two (\w+) has been running for (\d+) s", stuck.log)
        assert [id for id, _ in told] == re.findall(r"two (\w+) has been", stuck.log)
        assert 5 * LEASE <= int(told[0][1]) < 5 * LEASE + 10
    stuck.send(signal.SIGINT)
    asked = time.monotonic()
    stuck.end()
    assert time.monotonic() - asked < 2.0 + 5.0, stuck.log  # the second summand is for settling
    assert "did not end in time: it comes back after its lease" in stuck.log
    pipe.fleet.start(tasks=["two"])
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    chaos.settled("4 slow: never returns", broker_name, pipe, faults=1, seconds=seconds)
    assert pipe.ledger.repeated() == 1
