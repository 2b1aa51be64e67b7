"""Requests of the engine: repeated until they are answered, one line at an outage's begin and end, overdue ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes.brokers.exchange import Ack, Request
from sqspipes.engine.requests import PartError, PatientRequest
from sqspipes.errors import BrokerUnavailableError, QueueMissingError
from sqspipes.support import outage
from sqspipes.support.outage import RETURN_SECONDS
from tests.unit.engine_parts import Engine

AWAY = BrokerUnavailableError("away")


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses between tries be one second."""
    monkeypatch.setattr(outage, "BACKOFF", type("Second", (), {"seconds": staticmethod(lambda tries: 1.0)}))


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(longest_answer=60.0)
    yield engine
    engine.loop.close()


def ask(engine: Engine, came: list[Any], party: str = "ack q") -> PatientRequest:
    def make(tries: int) -> Request:
        return Ack("q", [f"try {tries}"])

    return engine.requests.ask(party, make, came.append, lambda: came.append("lost"))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_request_is_repeated_until_it_is_answered(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    came: list[Any] = []
    ask(engine, came)
    for _ in range(3):
        engine.answer(AWAY)
        assert engine.exchange.open == []
        engine.pass_time(1.1)
    engine.answer(["ok"])
    assert came == [["ok"]]
    assert [request.receipts for request in engine.exchange.asked] == [
        ["try 0"],
        ["try 1"],
        ["try 2"],
        ["try 3"],
    ]
    begin, end = lines(caplog)
    assert begin == "fake:// does not answer, trying again until it does: away"
    assert end.startswith("fake:// answers again after ") and end.endswith(" and 2 failed requests")
    assert engine.requests.error is None


def test_single_failure_is_no_outage(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    ask(engine, [])
    engine.answer(AWAY)
    engine.pass_time(1.1)
    engine.answer([])
    assert lines(caplog) == []


def test_outage_ends_when_every_party_was_answered(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    ask(engine, [], "one")
    ask(engine, [], "other")
    for _ in range(2):
        engine.answer(AWAY)
        engine.answer(AWAY)
        engine.pass_time(1.1)
    engine.answer([])
    assert engine.requests.error == "away"
    assert len(lines(caplog)) == 1
    engine.answer([])
    assert engine.requests.error is None
    assert len(lines(caplog)) == 2


def test_answer_to_what_was_asked_before_the_outage_does_not_end_it(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ask(engine, [])  # is answered late
    ask(engine, [])
    engine.pass_time(0.5)
    for _ in range(2):
        engine.answer(AWAY, 1)
        engine.pass_time(1.1)
    engine.answer([], 0)
    assert engine.requests.error == "away"
    engine.answer([])
    assert engine.requests.error is None
    assert len(lines(caplog)) == 2


def test_answer_that_was_overdue_ends_its_outage(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    ask(engine, [])
    engine.turn(61.0)
    assert engine.requests.error is not None
    engine.answer([])
    assert engine.requests.error is None
    assert len(lines(caplog)) == 2


def test_process_that_was_stopped_itself_does_not_give_up_what_is_being_answered(engine: Engine) -> None:
    came: list[Any] = []
    ask(engine, came)
    engine.turn(500.0)
    engine.turn(9.0)
    engine.answer(["ok"])
    assert (came, engine.errors) == ([["ok"]], [])


def test_first_answer_after_an_outage_ends_the_pauses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "BACKOFF", type("Long", (), {"seconds": staticmethod(lambda tries: 20.0)}))
    waiting: list[Any] = []
    ask(engine, waiting, "one")
    engine.answer(AWAY)
    engine.pass_time(20.1, 1.0)
    engine.answer(AWAY)  # its second failure: an outage, and a pause of 20 seconds more
    ask(engine, [], "other")
    engine.answer([])
    engine.pass_time(RETURN_SECONDS + 0.1)
    assert [request.receipts for request in engine.exchange.asked[-1:]] == [["try 2"]]


def test_error_that_no_try_mends_names_its_part_and_the_request_is_lost(engine: Engine) -> None:
    came: list[Any] = []
    ask(engine, came)
    engine.answer(QueueMissingError("q"))
    assert came == ["lost"]
    (error,) = engine.errors
    assert isinstance(error, PartError)
    assert (error.part, type(error.__cause__)) == ("ack q", QueueMissingError)


def test_request_that_is_paused_is_tried_once_more_at_once(engine: Engine) -> None:
    came: list[Any] = []
    request = ask(engine, came)
    engine.answer(AWAY)
    request.try_once_more()
    engine.turn()
    assert len(engine.exchange.open) == 1
    engine.answer(AWAY)
    assert came == [[]]
    assert engine.exchange.open == []


def test_request_under_way_is_tried_once_more_if_it_fails(engine: Engine) -> None:
    came: list[Any] = []
    request = ask(engine, came)
    request.try_once_more()
    engine.answer(AWAY)
    engine.turn()
    engine.answer(AWAY)
    assert came == [[]]
    assert len(engine.exchange.asked) == 2


def test_request_without_answer_is_an_outage_and_then_ends_the_run(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    request = ask(engine, [])
    engine.turn(59.0)
    assert not request.is_silent
    engine.turn(2.0)
    assert request.is_silent
    assert lines(caplog) == [
        "fake:// does not answer, trying again until it does: no answer, and no error, for 61.0 s"
    ]
    assert engine.errors == []
    engine.turn(61.0)
    (error,) = engine.errors
    assert isinstance(error, PartError)
    assert str(error.__cause__) == "no answer, and no error, for 122.0 s"


def test_hasten_ends_all_pauses(engine: Engine) -> None:
    for party in ("one", "other"):
        ask(engine, [], party)
    engine.answer(AWAY)
    engine.answer(AWAY)
    engine.requests.hasten()
    engine.turn()
    assert len(engine.exchange.open) == 2
