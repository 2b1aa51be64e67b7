"""Scenario 11, ``tox -e soak``: a quarter of an hour, in whose second half nothing may grow."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis

from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.ledger import RESULTS, taken

#: Longer than the five minutes for which ids are kept, twice over.
MINUTES = 15.0
#: Some 225,000 messages in that time.
EACH_SECOND = 250

#: These come and go with the load, by one or two.
COUNTED = ("threads", "sockets", "files")


@dataclass(frozen=True)
class Sample:
    """What a process and its files took at one time; sizes in MB."""

    memory: float
    threads: int
    sockets: int
    files: int
    stored: float


def of_files(database: Path) -> float:
    """Return the MB of a SQLite file and of what stands beside it."""
    return sum(path.stat().st_size for path in database.parent.glob(database.name + "*")) / 1e6


def of_server(url: str) -> float:
    """Return the MB that a Redis server keeps."""
    with contextlib.closing(redis.Redis.from_url(url.partition("?")[0])) as server:
        return float(server.info("memory")["used_memory"]) / 1e6


def sample(process: psutil.Process, stored: float) -> Sample:
    """Look at a worker; ``stored`` are the MB that the broker keeps."""
    return Sample(
        memory=process.memory_info().rss / 1e6,
        threads=process.num_threads(),
        sockets=len(process.net_connections()),
        files=process.num_fds(),
        stored=stored,
    )


class Feeder:
    """Feeds a pipe at a steady or a changing rate, and takes the results out of their queue."""

    def __init__(self, pipe: Pipe, minutes: float) -> None:
        self.pipe, self.seconds = pipe, minutes * 60
        self.results: set[tuple[str, int]] = set()
        self.twice = 0
        self._pause = threading.Event()

    def rounds(self, amount: Callable[[int], int]) -> Iterator[int]:
        """Put ``amount(n)`` messages in the n-th second, until the time is over; yield n."""
        begun, number = time.monotonic(), 0
        while time.monotonic() - begun < self.seconds:
            if count := amount(number):
                self.pipe.ledger.feed(
                    groups=min(count, 50), each=max(count // 50, 1), grouped=number % 2 == 0
                )
            self.take()
            if self.pipe.proxy:
                self.pipe.proxy.forget()
            yield number
            number += 1
            self._pause.wait(max(0.0, begun + number - time.monotonic()))

    def take(self) -> None:
        """Take the results that are there."""
        for body in taken(self.pipe.ledger.broker, f"{self.pipe.domain}--{RESULTS}.fifo"):
            value = json.loads(body)["value"]
            self.twice += (value["group"], value["n"]) in self.results
            self.results.add((value["group"], value["n"]))

    def finish(self) -> None:
        """Take results until all are there."""
        deadline = time.monotonic() + 120
        while len(self.results) < self.pipe.ledger.messages:
            assert time.monotonic() < deadline, f"{len(self.results)} of {self.pipe.ledger.messages}"
            self._pause.wait(0.5)
            self.take()


def growth(samples: list[Sample], figure: str) -> float:
    """How much the most of a figure grew from the third quarter of the time to the fourth; sizes as a part of it."""
    values = [getattr(each, figure) for each in samples]
    quarter = len(values) // 4
    before, after = max(values[2 * quarter : 3 * quarter]), max(values[3 * quarter :])
    return after - before if figure in COUNTED else after / before - 1 if before else after


def soaked(
    chaos: Chaos, pipe: Pipe, broker: str, amount: Callable[[int], int], stored: Callable[[], float]
) -> None:
    """Run the load and judge the second half."""
    worker = pipe.fleet.start()
    worker.said("runs on")
    process = psutil.Process(worker.process.pid)
    feeder = Feeder(pipe, MINUTES)
    samples = [sample(process, stored()) for _ in feeder.rounds(amount)]
    feeder.finish()
    grown = {figure: round(growth(samples, figure), 3) for figure in Sample.__annotations__}
    peak = {
        figure: round(max(getattr(each, figure) for each in samples), 1) for figure in Sample.__annotations__
    }
    chaos.report(
        "11 long haul",
        broker,
        messages=pipe.ledger.messages,
        lost=pipe.ledger.messages - len(feeder.results),
        twice=feeder.twice,
        seconds=round(MINUTES * 60),
        grown=grown,
        most=peak,
    )
    assert feeder.twice == 0
    assert all(grew < (3 if figure in COUNTED else 0.05) for figure, grew in grown.items()), grown
    pipe.fleet.end()


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 300)
@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_a_steady_load_takes_no_more_as_time_goes_by(
    chaos: Chaos, make_pipe: MakePipe, tmp_path: Path, broker: str
) -> None:
    pipe = make_pipe(broker, witnessed=False)
    stored = partial(of_files, tmp_path / "pipe.db")
    if broker == "redis":
        stored = partial(of_server, pipe.arguments["broker"])
    soaked(chaos, pipe, broker, lambda second: EACH_SECOND, stored)


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_a_mixed_load_on_sqs_takes_no_more_as_time_goes_by(chaos: Chaos, make_pipe: MakePipe) -> None:
    def bursts(second: int) -> int:
        if second % 60 >= 50:
            return 0
        return chaos.random.choice([1, 5, 20, 50])

    pipe = make_pipe("sqs", witnessed=False, failing=20, options={"backoff": 0.2})
    soaked(chaos, pipe, "sqs", bursts, lambda: 0.0)  # the emulator's memory is not ours
