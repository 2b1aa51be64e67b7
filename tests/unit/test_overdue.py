"""Overdue: one line for a call that runs long, with task, id and seconds, and another when it is twice as long."""

from __future__ import annotations

import logging
import threading

import pytest

from sqspipes import TaskClient
from sqspipes.engine import overdue as overdues
from sqspipes.engine.overdue import LONG_LEASES, Overdue
from tests.builders import held_of
from tests.integration.support import passed, until

LEASE = 10.0
LONG = LONG_LEASES * LEASE


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "sqspipes")
    return caplog


def test_call_is_mentioned_when_it_has_run_for_long_and_each_time_it_has_run_twice_as_long(
    log: pytest.LogCaptureFixture,
) -> None:
    overdue, running = Overdue("fetch", LEASE), {held_of(id="6f1c"): 100.0}
    for now in range(100, 100 + int(5 * LONG)):
        overdue.look(running, float(now))
    assert [record.levelname for record in log.records] == ["WARNING"] * 3
    assert log.messages == [
        f"fetch 6f1c has been running for {seconds:.0f} s and has not returned"
        for seconds in (LONG, 2 * LONG, 4 * LONG)
    ]


def test_seconds_to_the_next_look_are_those_to_the_next_line(log: pytest.LogCaptureFixture) -> None:
    overdue, running = Overdue("fetch", LEASE), {held_of(id="a"): 0.0, held_of(id="b"): 1.0}
    assert overdue.look({}, 0.0) is None
    assert overdue.look(running, 2.0) == LONG - 2
    assert overdue.look(running, LONG) == 1.0
    assert overdue.look(running, LONG + 1) == LONG - 1
    assert len(log.messages) == 2


def test_next_call_of_the_same_message_begins_anew(log: pytest.LogCaptureFixture) -> None:
    overdue, message = Overdue("fetch", LEASE), held_of(id="a")
    overdue.look({message: 0.0}, LONG)
    assert overdue.look({message: LONG}, LONG) == LONG
    overdue.look({message: LONG}, 2 * LONG - 1)
    assert len(log.messages) == 1


def test_next_call_begins_anew_beside_one_that_has_not_returned(log: pytest.LogCaptureFixture) -> None:
    overdue, old, message = Overdue("fetch", LEASE), held_of(id="old"), held_of(id="a")
    overdue.look({old: 0.0, message: 0.0}, LONG)
    overdue.look({old: 0.0, message: 1.5 * LONG}, 2 * LONG)
    assert [text.split(" ")[1] for text in log.messages] == ["old", "a", "old"]


def test_line_is_due_again_for_a_call_that_outlasts_an_older_one(log: pytest.LogCaptureFixture) -> None:
    overdue, old, young = Overdue("fetch", LEASE), held_of(id="old"), held_of(id="young")
    overdue.look({old: 0.0, young: 5.0}, LONG + 5)
    overdue.look({young: 5.0}, LONG + 6)
    assert [message.split(" ")[1] for message in log.messages] == ["old", "young"]


def test_run_tells_of_its_calls_that_run_long(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdues, "LONG_LEASES", 0.02)
    gate = threading.Event()
    client = TaskClient("overdue", broker="memory://", lease=5.0)
    client.register_tasks([{"name": "fetch", "method": lambda value: passed(gate)}])
    client.put(1)
    with client, client.start():
        until(lambda: any("and has not returned" in text for text in log.messages))
        gate.set()
