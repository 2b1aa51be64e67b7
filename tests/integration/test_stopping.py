"""Stopping: from anywhere, in good order, in time, and when a part of a run dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sqspipes import RunError, TaskClient
from sqspipes.brokers.base import Answer, Entry, Kind
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.engine import stopping
from tests.conftest import AWS
from tests.integration.support import PATIENCE, Seen, in_flight, passed, piped, until, waiting
from tests.servers import Proxy, error

MEMORY = {"broker": "memory://"}


def test_task_may_stop_the_run(domain: str, pipe_broker: dict[str, Any]) -> None:
    def work(value: int) -> None:
        client.stop()

    with piped(domain, pipe_broker, work) as client:
        client.put(1)
        summary = client.run()
        assert (summary.reason, summary.done) == ("stopped", 1)
        assert (waiting(client, "work"), in_flight(client, "work")) == (0, 0)


def test_stop_comes_from_any_thread(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, seen.take) as client:
        client.put(1)
        stopper = threading.Thread(target=lambda: (seen.wait(1), client.stop()))
        stopper.start()
        assert client.run().reason == "stopped"
        stopper.join()


def test_stop_without_a_run_does_nothing(domain: str) -> None:
    with piped(domain, MEMORY, Seen().take) as client:
        client.stop()
        client.put(1)
        assert client.run(drain=True).done == 1


def test_stop_waits_for_running_calls_and_keeps_what_they_did(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    inside, gate = threading.Event(), threading.Event()

    def slow(value: int) -> int:
        inside.set()
        passed(gate)
        return value

    with piped(domain, pipe_broker, slow, {"name": "last"}) as client:
        client.put(1)
        run = client.start()
        passed(inside)
        run.stop()
        with pytest.raises(TimeoutError):
            run.wait(0.3)
        gate.set()
        assert run.wait(15).done == 1
        assert (waiting(client, "last"), waiting(client, "slow"), in_flight(client, "slow")) == (1, 0, 0)


def test_stop_gives_back_at_once_what_was_not_started(domain: str, pipe_broker: dict[str, Any]) -> None:
    inside, gate = threading.Event(), threading.Event()

    def slow(value: int) -> None:
        inside.set()
        passed(gate)

    with piped(domain, pipe_broker, slow) as client:
        client.put_many(range(8))
        run = client.start()
        passed(inside)
        until(lambda: in_flight(client, "slow") == 8)
        run.stop()
        until(lambda: in_flight(client, "slow") == 1)
        gate.set()
        run.wait(15)
        assert (waiting(client, "slow"), in_flight(client, "slow")) == (7, 0)


def test_stop_gives_back_what_is_in_backoff(domain: str, pipe_broker: dict[str, Any]) -> None:
    def broken(value: int) -> None:
        raise OSError

    with piped(domain, pipe_broker, broken, backoff=200) as client:
        client.put(1)
        with client.start() as run:
            until(lambda: run.summary.failed == 1)
        # On the emulator the poll that the stop cut goes on, and may have received the message by now.
        level = client.status().levels[0]
        assert level.waiting + level.in_flight == 1
        if pipe_broker["broker"] != "sqs://":
            assert level.waiting == 1


def test_call_that_outlasts_the_stop_timeout_is_left_to_come_back(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    inside, gate, over = threading.Event(), threading.Event(), threading.Event()

    def endless(value: int) -> int:
        inside.set()
        passed(gate)
        over.set()
        return value

    with piped(domain, pipe_broker, endless, {"name": "last"}, stop_timeout=0.2) as client:
        client.put(1)
        run = client.start()
        passed(inside)
        run.stop()
        assert run.wait(10).done == 0
        gate.set()
        passed(over)
        assert waiting(client, "last") == 0
        until(lambda: waiting(client, "endless") == 1)


def test_generator_that_outlasts_the_stop_timeout_hands_on_nothing_more(domain: str) -> None:
    inside, gate, over = threading.Event(), threading.Event(), threading.Event()

    def rows(value: int) -> Any:
        try:
            yield 1
            inside.set()
            passed(gate)
            yield 2
        finally:
            over.set()

    with piped(domain, MEMORY, rows, {"name": "last"}, stop_timeout=0.1) as client:
        client.put(1)
        run = client.start()
        passed(inside)
        run.stop()
        run.wait(10)
        gate.set()
        passed(over)
        assert waiting(client, "last") == 1


def test_part_that_dies_ends_the_run_with_its_name_and_cause(domain: str, proxy: Proxy) -> None:
    with piped(domain, {"broker": "sqs://", **AWS}, Seen().take, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.always("ReceiveMessage", error(403, "AccessDenied"))
        with pytest.raises(RunError, match="ReceiveMessage") as caught:
            client.run()
    assert "receive" in caught.value.part
    assert f"{domain}--take.fifo" in caught.value.part
    assert caught.value.__cause__ is not None


def test_queue_that_is_deleted_under_a_run_ends_it(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, seen.take) as client:
        client.put(1)
        run = client.start()
        seen.wait(1)
        until(lambda: run.summary.done == 1)
        client.delete()
        if pipe_broker["broker"] != "sqs://":
            with pytest.raises(RunError, match=f"{domain}--take.fifo does not exist"):
                run.wait(15)
        run.stop()


def test_interval_that_fails_ends_the_run(domain: str) -> None:
    def wrong() -> float:
        return 1 / 0

    def tick() -> int:
        return 1

    client = piped(domain, MEMORY, {"method": tick, "interval": wrong, "retries": 0}, Seen().take)
    with client, pytest.raises(ZeroDivisionError):
        client.run()


class Refusing(SqliteBroker):
    """A broker in memory that refuses what one queue is sent, once it is told to go on."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.asked, self.stopping = threading.Event(), threading.Event()
        self.go_on, self.answered = threading.Event(), threading.Event()
        self.refused = ""
        self.gives_back: Callable[[], object] = lambda: None

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        if queue != self.refused:
            return super().send(queue, entries)
        self.asked.set()
        passed(self.go_on)
        self.answered.set()
        return [Answer(Kind.NEVER, "too large") for _ in entries]

    def interrupt(self) -> None:
        self.stopping.set()
        super().interrupt()

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        if leases[0][1] == 0:
            self.gives_back()
        return super().extend(queue, leases)


def refusing(domain: str, broker: Refusing) -> TaskClient:
    """Return a client whose first task's output will be refused, with one message."""
    client = piped(domain, {"broker": broker}, {"method": str, "name": "work"}, {"name": "kept"})
    broker.refused = client.tasks[1].queue(0)
    client.put(1)
    return client


@pytest.mark.parametrize("kind", ["signal", "stop", "interrupt"])
def test_output_that_is_refused_during_a_stop_is_a_dead_letter_and_the_stop_is_clean(
    kind: str, domain: str
) -> None:
    broker = Refusing()
    with refusing(domain, broker) as client:
        run = client.start("work")
        passed(broker.asked)
        getattr(run, kind)()
        passed(broker.stopping)
        threading.Event().wait(0.2)  # by now the stop waits for what is under way
        broker.go_on.set()
        assert run.wait(PATIENCE).dead == 1
        assert [letter.error for letter in client.dead_letters("work")] == [
            "an output was refused: too large"
        ]
        assert in_flight(client, "work") == waiting(client, "work") == 0


def test_output_that_is_refused_when_a_stop_has_no_time_left_leaves_its_message_to_come_back(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Refusing()
    monkeypatch.setattr(stopping, "SETTLING_SECONDS", 0.2)

    def answer() -> None:
        broker.go_on.set()
        passed(broker.answered)
        threading.Event().wait(0.2)  # the answer is looked at meanwhile

    with refusing(domain, broker) as client:
        run = client.start("work")
        passed(broker.asked)
        broker.gives_back = answer
        run.signal()
        assert run.wait(PATIENCE).dead == 0
        assert waiting(client, "work") == 1
        assert client.run("work", drain=True).dead == 1
