"""What one part of a pipe waits for costs no other part anything, and nothing is given up in silence."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from sqspipes import PutError
from sqspipes.brokers.base import OK, Answer, Entry, Kind
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.errors import BrokerUnavailableError
from sqspipes.messages.message import Delivery
from sqspipes.support import outage
from tests.integration.support import PATIENCE, Seen, piped


class Stubborn(SqliteBroker):
    """A broker in memory that does not take one body for now, or answers no send before the test is over."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.refused = "nothing"
        self.hangs: threading.Event | None = None

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        if self.hangs is not None:
            assert self.hangs.wait(PATIENCE)
        taken = [entry for entry in entries if self.refused not in entry.body]
        if taken:
            super().send(queue, taken)
        return [OK if entry in taken else Answer(Kind.AGAIN, "not now") for entry in entries]


def test_message_that_its_queue_does_not_take_now_holds_up_no_other(domain: str) -> None:
    seen, broker = Seen(), Stubborn()

    def first(value: int) -> int:
        return value

    with piped(domain, {"broker": broker}, first, seen.take) as client:
        client.put_many(range(300))
        broker.refused = '"value":0}'
        with client.start():
            assert sorted(seen.wait(299)) == list(range(1, 300))
            broker.refused = "nothing"
            assert 0 in seen.wait(300)


def test_put_many_whose_request_hangs_says_that_not_all_was_sent(domain: str) -> None:
    broker = Stubborn()
    with piped(domain, {"broker": broker}, {"name": "take"}) as client:
        client.create_queues()
        broker.hangs = threading.Event()
        with pytest.raises(PutError) as caught:
            client.put_many(range(5), timeout=0.1)
        broker.hangs.set()
    assert caught.value.sent == 0
    assert isinstance(caught.value.__cause__, BrokerUnavailableError)


class Losing(SqliteBroker):
    """A broker in memory that loses the answers of receives, and gives them again once it is healed."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.lost: dict[str, list[Delivery]] = {}
        self.loses, self.losing = False, threading.Semaphore(0)

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        found = self.lost.get(attempt) or super().receive(
            queue, count=count, wait=wait, lease=lease, attempt=attempt
        )
        if found and self.loses:
            self.lost[attempt] = found
            self.losing.release()
            raise BrokerUnavailableError("lost")
        return found


def test_stop_asks_for_what_a_lost_receive_held_and_gives_it_back(domain: str) -> None:
    broker, seen = Losing(), Seen()
    with piped(domain, {"broker": broker}, seen.take) as client:
        client.put("one")
        broker.loses = True
        with client.start():
            for _ in range(5):
                assert broker.losing.acquire(timeout=PATIENCE)
            broker.loses = False
        depth = broker.depth(client.queue_names[0])
        assert (depth.in_flight, depth.waiting + len(seen.values)) == (0, 1)


class Failing(SqliteBroker):
    """A broker in memory that does not answer the first two receives of one queue."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.failing, self.left, self.failed = "", 2, threading.Event()

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        if queue == self.failing and self.left:
            self.left -= 1
            if not self.left:
                self.failed.set()
            raise BrokerUnavailableError("down")
        return super().receive(queue, count=count, wait=wait, lease=lease, attempt=attempt)


def test_receive_is_repeated_as_soon_as_the_broker_is_back(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "BACKOFF", SimpleNamespace(seconds=lambda tries: 0.0 if tries == 1 else 1e6))
    monkeypatch.setattr(outage, "AWAY_SECONDS", -1.0)
    seen, broker = Seen(), Failing()

    def first(value: str) -> str:
        return value

    with piped(domain, {"broker": broker}, first, seen.take) as client:
        client.create_queues()
        broker.failing = client.queue_names[0]
        client.put("waits")
        with client.start():
            assert broker.failed.wait(PATIENCE)
            client.put("ends the outage", task="take")
            assert sorted(seen.wait(2)) == ["ends the outage", "waits"]
