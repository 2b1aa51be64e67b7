"""Listeners: what a run tells of what it does, to functions of its user and to its log."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sqspipes import OptionError, Summary, TaskClient, events
from sqspipes.events import (
    Called,
    Died,
    Event,
    HandedOn,
    LeaseLost,
    OutageBegan,
    OutageEnded,
    Retried,
    Stopped,
)
from tests.conftest import AWS
from tests.integration.support import PATIENCE, ROOT, Seen, child_environment, piped
from tests.servers import Proxy, lost_request

MEMORY = {"broker": "memory://"}


class Heard:
    """Remembers events; ``wait`` waits for some of a kind."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def wait(self, *kinds: type) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(*kinds), PATIENCE), self.events
        return self.of(*kinds)


def test_way_of_a_message_is_told_in_order(domain: str, pipe_broker: dict[str, Any]) -> None:
    heard, seen = Heard(), Seen()
    failures: list[int] = []

    def work(value: int) -> int:
        if not failures:
            failures.append(value)
            raise ValueError("not yet")
        return value

    with piped(domain, pipe_broker, {"method": work, "retries": 3}, seen.take, listeners=heard) as client:
        client.put(5, id="a", group="g")
        with client.start():
            seen.wait(1)
    first = [event for event in heard.events if getattr(event, "task", None) == "work"]
    assert [type(event) for event in first] == [Retried, Called, HandedOn]
    retried, called, handed_on = first
    assert (retried.domain, retried.id, retried.group) == (domain, "a", "g")
    assert (retried.attempt, retried.of, retried.error) == (1, 4, "ValueError: not yet")
    assert isinstance(retried.exception, ValueError)
    assert 0 < retried.delay < 1
    assert (called.id, called.group, called.attempt) == ("a", "g", 2)
    assert 0 <= called.seconds < PATIENCE
    assert (handed_on.id, handed_on.to) == ("a", "take")
    assert [event.id for event in heard.of(Called) if event.task == "take"] == [handed_on.output]
    (stopped,) = heard.of(Stopped)
    assert heard.events[-1] is stopped
    assert stopped == Stopped(domain, Summary("stopped", done=2, failed=1, dead=0))
    assert stopped.error is None


def test_dead_letter_is_told_with_its_error(domain: str, pipe_broker: dict[str, Any]) -> None:
    heard = Heard()

    def work(value: int) -> None:
        raise KeyError("cake")

    with piped(domain, pipe_broker, {"method": work, "retries": 1}, listeners=[heard]) as client:
        id = client.put(1)
        with client.start():
            (died,) = heard.wait(Died)
        (letter,) = client.dead_letters("work")
    assert died == Died(domain, "work", id, None, 2, "KeyError", "'cake'")
    assert isinstance(died.exception, KeyError)
    assert (letter.error_type, letter.error, letter.attempts) == (died.error_type, died.error, died.attempts)
    assert heard.of(Stopped) == [Stopped(domain, Summary("stopped", done=0, failed=2, dead=1))]


def test_output_of_a_source_comes_of_no_message(domain: str) -> None:
    heard, seen = Heard(), Seen()

    def tick() -> int:
        return 7

    source = {"method": tick, "interval": 0.01}
    with piped(domain, MEMORY, source, seen.take, listeners=heard) as client, client.start():
        seen.wait(1)
    assert {(event.task, event.id, event.to) for event in heard.of(HandedOn)} == {("tick", None, "take")}


def test_error_that_ends_the_run_is_in_the_last_event(domain: str) -> None:
    heard = Heard()

    def work(value: int) -> None:
        raise ZeroDivisionError("no")

    with piped(domain, MEMORY, {"method": work, "on_error": "raise"}, listeners=heard) as client:
        client.put(1)
        with pytest.raises(ZeroDivisionError):
            client.run()
    (stopped,) = heard.of(Stopped)
    assert isinstance(stopped.error, ZeroDivisionError)


def test_outage_is_told_when_it_begins_and_when_it_ends(domain: str, proxy: Proxy) -> None:
    heard, seen = Heard(), Seen()
    broker = {"broker": "sqs://", "endpoint_url": proxy.url, **AWS}
    with piped(domain, broker, seen.take, listeners=heard) as client:
        client.create_queues()
        with client.start():
            proxy.always("", lost_request)
            proxy.cut()
            (began,) = heard.wait(OutageBegan)
            proxy.clear()
            (ended,) = heard.wait(OutageEnded)
    assert began.broker == ended.broker == "sqs://"
    assert began.error
    assert ended.seconds > 0
    assert ended.requests >= 1


# Listeners that do harm


def test_listener_that_raises_is_logged_once_and_costs_nothing(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard, seen = Heard(), Seen()

    def broken(event: Event) -> None:
        raise SystemExit(1)

    with piped(domain, MEMORY, seen.take, listeners=[broken, heard]) as client:
        client.put_many(range(20))
        client.run(drain=True)
    assert len(heard.of(Called)) == 20
    told = [record for record in caplog.records if "listener" in record.getMessage()]
    assert len(told) == 1
    assert "broken failed, and is told of the next events all the same: SystemExit" in told[0].getMessage()
    assert told[0].levelno == logging.WARNING


def test_listener_may_stop_its_run(domain: str) -> None:
    seen = Seen()

    def stop_at_a_call(event: Event) -> None:
        if isinstance(event, Called):
            client.stop()

    with piped(domain, MEMORY, seen.take, listeners=stop_at_a_call) as client:
        client.put(1)
        assert client.run().reason == "stopped"


@pytest.mark.parametrize("listeners", [3, "name", [print, None]])
def test_what_cannot_be_called_is_refused(domain: str, listeners: Any) -> None:
    with pytest.raises(
        OptionError, match=r"^listeners is .*: allowed is a callable of an event, or a list of them"
    ):
        TaskClient(domain, **MEMORY, listeners=listeners)


# Across processes


def test_functions_go_with_the_client_to_other_processes(domain: str, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    program = ROOT / "tests" / "integration" / "programs" / "heard.py"
    command = [sys.executable, str(program), domain, f"sqlite:///{tmp_path}/pipe.db", str(heard)]
    ran = subprocess.run(
        command, env=child_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "20\n", "")
    lines = [line.split() for line in heard.read_text().splitlines()]
    assert Counter(what for what, _ in lines) == {"around": 20, "called": 20}
    called, around = (Counter(pid for what, pid in lines if what == kind) for kind in ("called", "around"))
    assert called == around  # a call is told where it was made


def test_function_that_cannot_go_to_another_process_is_named(domain: str, tmp_path: Path) -> None:
    client = TaskClient(domain, broker=f"sqlite:///{tmp_path}/pipe.db", listeners=lambda event: None)
    client.register_tasks([print])
    with pytest.raises(OptionError, match="listeners"):
        client.start(processes=2)
    client.close()


def test_events_are_frozen_and_name_what_they_are_of() -> None:
    event = LeaseLost("app", "fetch", "1")
    with pytest.raises(AttributeError):
        event.id = "2"  # type: ignore[misc]
    assert repr(event) == "LeaseLost(domain='app', task='fetch', id='1')"
    assert set(events.Event.__args__) >= {Called, Died, LeaseLost}
