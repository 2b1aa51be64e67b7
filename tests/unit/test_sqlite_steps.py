"""What a request to the embedded broker costs, counted in SQLite's own steps: the same however much is stored."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest

from sqspipes.brokers.base import OK, Entry, QueueSpec
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.messages.message import Delivery

#: Messages that are stored before the steps of a request are counted, the first and the second time.
FEW, MANY = 320, 6_400

#: How many times as many steps the second time may take: a tree of pages is a level deeper.
DEEPER = 1.25


class Bench:
    """A broker in memory, and how many steps SQLite takes for each of its requests."""

    def __init__(self, broker: SqliteBroker, database: sqlite3.Connection) -> None:
        self._broker = broker
        self._database = database
        self._numbers = itertools.count()

    def fill(self, count: int, groups: int | None) -> None:
        """Put messages, in so many groups or each in its own."""
        for _ in range(count // 32):
            self.send(groups, 32)

    def send(self, groups: int | None, count: int = 10) -> None:
        """Put messages that were never put before."""
        numbers = list(itertools.islice(self._numbers, count))
        entries = [Entry("body", str(n if groups is None else n % groups), str(n)) for n in numbers]
        assert self._broker.send("q", entries) == [OK] * count

    def receive(self, count: int = 10, lease: float = 30.0) -> list[Delivery]:
        """Receive what there is, without waiting."""
        return self._broker.receive("q", count=count, wait=0, lease=lease, attempt="")

    def hold(self, count: int) -> None:
        """Keep so many messages in flight."""
        for _ in range(count // 32):
            assert len(self.receive(32, 3_600)) == 32

    def steps(self, groups: int | None) -> dict[str, int]:
        """Return the steps of each kind of request, the most of so many that some of them sweep old ids too."""
        found = [self._steps_once(groups) for _ in range(20)]
        return {name: max(each[name] for each in found) for name in found[0]}

    def _steps_once(self, groups: int | None) -> dict[str, int]:
        broker, held = self._broker, list[Delivery]()
        return {
            "send": self._counted(lambda: self.send(groups)),
            "send again": self._counted(lambda: broker.send("q", [Entry("body", "0", "0")])),
            "receive": self._counted(lambda: held.extend(self.receive())),
            "extend": self._counted(lambda: broker.extend("q", [(one.receipt, 20.0) for one in held[:9]])),
            "release": self._counted(lambda: broker.extend("q", [(one.receipt, 0.0) for one in held[9:]])),
            "ack": self._counted(lambda: broker.ack("q", [one.receipt for one in held[:9]])),
            "receive one": self._counted(lambda: held.extend(self.receive(1, lease=0.0))),
            "expire": self._counted(lambda: held.extend(self.receive(1))),
            "give back": self._counted(lambda: broker.extend("q", [(held[-1].receipt, 0.0)])),
        }

    def depth_steps(self) -> int:
        """Return the steps of counting a queue's messages."""
        return self._counted(lambda: self._broker.depth("q"))

    def _counted(self, request: Callable[[], object]) -> int:
        counted: list[None] = []
        self._database.set_progress_handler(lambda: counted.append(None), 1)
        try:
            request()
        finally:
            self._database.set_progress_handler(None, 1)
        return len(counted)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A broker whose connection is known."""
    opened: list[sqlite3.Connection] = []

    class Known(sqlite3.Connection):
        """A connection that is found in ``opened``."""

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            opened.append(self)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Known, **options))
    now = time.time()  # it stands still: nothing expires but what is received for no time at all
    with contextlib.closing(SqliteBroker("memory://", clock=lambda: now)) as broker:
        broker.declare([QueueSpec("q")])
        yield Bench(broker, opened[-1])


def assert_no_more(before: dict[str, int], after: dict[str, int]) -> None:
    grown = {name: (before[name], after[name]) for name in before if after[name] > DEEPER * before[name] + 10}
    assert grown == {}


@pytest.mark.parametrize("groups", [None, 8], ids=["own groups", "few groups"])
def test_request_takes_as_many_steps_however_much_waits(bench: Bench, groups: int | None) -> None:
    bench.fill(FEW, groups)
    before, depth = bench.steps(groups), bench.depth_steps()
    bench.fill(MANY, groups)
    assert_no_more(before, bench.steps(groups))
    assert bench.depth_steps() <= depth + 10


def test_request_takes_as_many_steps_however_much_is_in_flight(bench: Bench) -> None:
    bench.fill(FEW, None)
    bench.hold(FEW // 2)
    before = bench.steps(None)
    bench.fill(MANY, None)
    bench.hold(MANY // 2)
    assert_no_more(before, bench.steps(None))


def test_request_takes_as_many_steps_however_much_waits_in_groups_that_are_in_flight(bench: Bench) -> None:
    bench.fill(32, 1)
    held = bench.receive(10)
    bench.fill(FEW, None)
    before = bench.steps(None)
    bench.fill(MANY, 1)
    assert_no_more(before, bench.steps(None))
    assert len(held) == 10
