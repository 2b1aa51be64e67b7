"""The exchange of ``memory://``: a poll hears of a message at once, and of a lease that ends within a tick."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes.brokers.base import Entry, QueueSpec
from sqspipes.brokers.exchange import Receive
from sqspipes.brokers.sqlite import SqliteBroker, exchange
from sqspipes.engine.loop import EngineLoop

PATIENCE = 10.0


class Polling:
    """A poll of an empty queue, on a loop."""

    def __init__(self, now: list[float]) -> None:
        self.broker = SqliteBroker("memory://", clock=lambda: time.time() + now[0])
        self.broker.declare([QueueSpec("q")])
        self.loop = EngineLoop()
        made = self.broker.exchange(self.loop, "test")
        assert made is not None
        self.exchange = made
        self.came: list[Any] = []

    def poll(self) -> None:
        """Wait for a message for a minute."""
        self.exchange.submit(Receive("q", 10, 60.0, 30.0, "a"), self.came.append)

    def wait(self) -> None:
        """Run turns until the poll is answered."""
        deadline = time.monotonic() + PATIENCE
        while not self.came:
            assert time.monotonic() < deadline
            self.loop.turn(0.1)


@pytest.fixture
def ahead() -> list[float]:
    """The seconds that the broker's clock is ahead."""
    return [0.0]


@pytest.fixture
def polling(ahead: list[float]) -> Iterator[Polling]:
    found = Polling(ahead)
    with contextlib.closing(found.loop), contextlib.closing(found.broker), contextlib.closing(found.exchange):
        yield found


def test_poll_hears_what_another_thread_puts(polling: Polling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TICK", 3_600.0)
    polling.poll()
    putting = threading.Thread(target=polling.broker.send, args=("q", [Entry("a", "g", "1")]))
    putting.start()
    polling.wait()
    putting.join()
    assert [one.body for one in polling.came[0]] == ["a"]


def test_poll_finds_a_message_whose_lease_ends(polling: Polling, ahead: list[float]) -> None:
    polling.broker.send("q", [Entry("a", "g", "1")])
    assert polling.broker.receive("q", count=1, wait=0.0, lease=30.0, attempt="b")
    polling.poll()
    polling.loop.turn(0)
    assert polling.came == []
    ahead[0] = 31.0
    polling.wait()
    assert [(one.body, one.receives) for one in polling.came[0]] == [("a", 2)]


def test_broker_of_somebody_elses_making_is_asked_by_threads() -> None:
    class Slow(SqliteBroker):
        pass

    loop = EngineLoop()
    assert Slow("memory://").exchange(loop, "test") is None
    assert SqliteBroker("sqlite:///never_opened.db").exchange(loop, "test") is None
    loop.close()
