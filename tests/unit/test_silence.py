"""Requests that neither answer nor fail: seen in the log and the status, and the end of the run if they stay so."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from sqspipes import RunError, TaskClient
from sqspipes.brokers.base import Answer, Broker, Depth, Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.messages.message import Delivery
from tests.conftest import MakeBroker
from tests.integration.support import PATIENCE, Seen, passed, until
from tests.servers import Forward, Proxy, Reply, Request

#: Seconds within which every request of these tests should be answered.
LONGEST_ANSWER = 1.0

TAKE, AFTER = "silence--take.fifo", "silence--after.fifo"


class Hanging(SqliteBroker):
    """A broker in memory; a request of an action on a queue waits where a gate stands closed."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.limits = replace(self.limits, longest_answer=LONGEST_ANSWER, longest_wait=0.1)
        self.gates: dict[tuple[str, str], threading.Event] = {}
        self.hung = threading.Semaphore(0)

    def hang(self, action: str, queue: str) -> threading.Event:
        """Let requests hang until the event that is returned is set."""
        return self.gates.setdefault((action, queue), threading.Event())

    def _pass(self, action: str, queue: str) -> None:
        gate = self.gates.get((action, queue))
        if gate is not None and not gate.is_set():
            self.hung.release()
            gate.wait(PATIENCE)

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        found = super().receive(queue, count=count, wait=wait, lease=lease, attempt=attempt)
        self._pass("receive", queue)
        return found

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        self._pass("send", queue)
        return super().send(queue, entries)

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        self._pass("ack", queue)
        return super().ack(queue, receipts)

    def depth(self, queue: str) -> Depth:
        self._pass("depth", queue)
        return super().depth(queue)


@pytest.fixture
def broker() -> Iterator[Hanging]:
    with contextlib.closing(Hanging()) as broker:
        yield broker
        for gate in broker.gates.values():
            gate.set()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "sqspipes")
    return caplog


def piped(broker: Broker, seen: Seen) -> TaskClient:
    def take(value: int) -> int:
        seen.take(value)
        return value

    return TaskClient("silence", broker=broker).register_tasks([take, {"name": "after"}])


def test_receive_that_answers_late_is_an_outage_and_loses_nothing(
    broker: Hanging, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    client = piped(broker, seen)
    gate = broker.hang("receive", TAKE)
    with client.start() as run:
        assert broker.hung.acquire(timeout=PATIENCE)
        client.put(1)
        until(lambda: "no answer" in (client.status().outage or ""))
        gate.set()
        assert seen.wait(1) == [1]
        until(lambda: run.outage is None)
    begins, ends = log.messages
    assert begins.startswith("memory:// does not answer")
    assert ends.startswith("memory:// answers again")


def test_look_of_a_drain_that_answers_late_is_an_outage(
    broker: Hanging, log: pytest.LogCaptureFixture
) -> None:
    client = piped(broker, Seen())
    gate = broker.hang("depth", TAKE)
    with client.start(drain=True) as run:
        assert broker.hung.acquire(timeout=PATIENCE)
        until(lambda: "no answer" in (run.outage or ""))
        gate.set()
        assert run.wait(PATIENCE).reason == "drained"
    assert ["does not answer" in line for line in log.messages] == [True, False]


@pytest.mark.parametrize(("action", "queue"), [("receive", TAKE), ("send", AFTER), ("ack", TAKE)])
def test_request_that_is_never_answered_ends_the_run_with_its_name(
    broker: Hanging, action: str, queue: str, log: pytest.LogCaptureFixture
) -> None:
    client = piped(broker, Seen())
    client.put(1)
    broker.hang(action, queue)
    began = time.monotonic()
    with pytest.raises(RunError, match=f"{action} {queue} died: .*no answer, and no error, for ") as caught:
        client.run()
    assert caught.value.part == f"{action} {queue}"
    assert 2 * LONGEST_ANSWER <= time.monotonic() - began < PATIENCE
    assert sum("does not answer" in line for line in log.messages) == 1


def test_message_of_a_lost_receive_goes_back_when_it_comes_at_last(broker: Hanging) -> None:
    seen = Seen()
    client = piped(broker, seen)
    client.put(1)
    gate = broker.hang("receive", TAKE)
    with pytest.raises(RunError):
        client.run()
    assert broker.depth(TAKE).in_flight == 1
    gate.set()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("sqspipes receive silence")])
    assert not seen.values
    assert sum((broker.depth(TAKE).waiting, broker.depth(TAKE).in_flight)) == 1


def test_late_answer_of_a_receive_counts_its_lease_from_the_begin(broker: Hanging) -> None:
    seen = Seen()
    client = piped(broker, seen)
    shorter = replace(client.tasks[0], lease=0.6)  # than users may have it
    client._pipe = replace(client._pipe, tasks=(shorter, *client.tasks[1:]))
    client.put(1)
    gate = broker.hang("receive", TAKE)
    with client.start() as run:
        assert broker.hung.acquire(timeout=PATIENCE)
        until(lambda: run.outage is not None)
        until(lambda: SqliteBroker.receive(broker, TAKE, count=1, wait=0.1, lease=60, attempt="other") != [])
        gate.set()  # what it brings is another's now
        until(lambda: run.outage is None)
    assert not seen.values


def test_stop_does_not_wait_for_a_receive_that_hangs(broker: Hanging) -> None:
    client = piped(broker, Seen())
    broker.hang("receive", TAKE)
    run = client.start()
    assert broker.hung.acquire(timeout=PATIENCE)
    run.signal()
    assert run.wait(PATIENCE / 2).reason == "signal"


def test_second_signal_does_not_wait_for_a_receive_that_has_only_begun_to_hang(broker: Hanging) -> None:
    broker.limits = replace(broker.limits, longest_answer=10 * PATIENCE)
    client = piped(broker, Seen())
    broker.hang("receive", TAKE)
    run = client.start()
    assert broker.hung.acquire(timeout=PATIENCE)
    run.signal()
    run.signal()
    assert run.wait(PATIENCE / 2).reason == "signal"


def test_server_that_never_answers_a_poll_ends_the_run(make_broker: MakeBroker, proxy: Proxy) -> None:
    freed = threading.Event()

    def silent(request: Request, forward: Forward) -> Reply | None:
        freed.wait(PATIENCE)
        return None

    broker = make_broker("sqs", endpoint_url=proxy.url)
    broker.limits = replace(broker.limits, longest_answer=LONGEST_ANSWER)
    client = TaskClient("silence", broker=broker).register_tasks([{"name": "take", "method": passed}])
    client.create_queues()
    proxy.always("ReceiveMessage", silent)
    began = time.monotonic()
    with pytest.raises(RunError, match=f"receive {TAKE} died"):
        client.run()
    assert 2 * LONGEST_ANSWER <= time.monotonic() - began < PATIENCE
    freed.set()
