"""Scenario 3: the server goes away in the middle, and comes back with its data."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.fleet import Worker
from tests.chaos.ledger import wait_for
from tests.servers import Ministack
from tests.valkey import Valkey

BEGIN, END = "does not answer, trying again until it does", "answers again after"

LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""


@pytest.fixture
def server() -> Iterator[Ministack]:
    """An emulator of one's own, which keeps its data."""
    server = Ministack(keeps=True)
    yield server
    server.stop()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Have another process lock a SQLite file inside the block."""
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout
        assert holder.stdin
        assert holder.stdout.readline() == b"locked\n"
        yield
        holder.stdin.close()
    assert holder.returncode == 0


def passes(seconds: float) -> None:
    """Let an outage last so long."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= until, seconds + 10, lambda: "time stands still")


def busy(chaos: Chaos, pipe: Pipe) -> list[Worker]:
    """Start two processes and return when they are in the middle of what there is to do."""
    workers = [pipe.fleet.start(), pipe.fleet.start()]
    for worker in workers:
        worker.said("runs on")
    pipe.ledger.feed(groups=20, each=30 if chaos.full else 10)
    wait_for(lambda: pipe.ledger.done() * 5 > pipe.ledger.messages, 60, lambda: f"{pipe.ledger.done()} done")
    assert pipe.ledger.done() < pipe.ledger.messages, "the outage came too late"
    return workers


def said_once(worker: Worker) -> None:
    """Check that a process told of the outage's begin and of its end, and of nothing in between."""
    worker.said(END)
    assert (worker.log.count(BEGIN), worker.log.count(END)) == (1, 1), worker.log


@pytest.mark.timeout(240)
def test_server_that_goes_away_is_waited_for(chaos: Chaos, server: Ministack, make_pipe: MakePipe) -> None:
    pipe = make_pipe("sqs", server=server.url, options={"lease": 5.0}, seconds=0.05)
    workers = busy(chaos, pipe)
    server.pause()
    passes(30.0 if chaos.full else 3.0)
    server.resume()
    seconds = pipe.ledger.settle(120)
    for worker in workers:
        said_once(worker)
    pipe.fleet.end()
    chaos.settled("3 outage: server away", "sqs", pipe, faults=1, seconds=seconds)


@pytest.mark.timeout(240)
def test_redis_that_is_killed_comes_back_with_all_that_it_answered(chaos: Chaos, make_pipe: MakePipe) -> None:
    with contextlib.closing(Valkey(appendfsync="always")) as valkey:
        pipe = make_pipe("redis", valkey=valkey, options={"lease": 5.0}, seconds=0.05)
        workers = busy(chaos, pipe)
        valkey.kill()
        passes(30.0 if chaos.full else 3.0)
        valkey.restart()
        seconds = pipe.ledger.settle(120)
        for worker in workers:
            said_once(worker)
        pipe.fleet.end()
        chaos.settled("3 outage: server killed", "redis", pipe, faults=1, seconds=seconds)


@pytest.mark.timeout(240)
def test_file_that_another_process_locks_is_waited_for(
    chaos: Chaos, make_pipe: MakePipe, tmp_path: Path
) -> None:
    pipe = make_pipe("sqlite", options={"lease": 5.0}, seconds=0.05)
    workers = busy(chaos, pipe)
    with locked(tmp_path / "pipe.db"):
        passes(20.0 if chaos.full else 3.0)
    seconds = pipe.ledger.settle(120)
    for worker in workers:
        if chaos.full or BEGIN in worker.log:
            said_once(worker)
    pipe.fleet.end()
    chaos.settled("3 outage: file locked", "sqlite", pipe, faults=1, seconds=seconds)
