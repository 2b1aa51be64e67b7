"""Outage: one line when it begins, one when it is over, and pauses that grow."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.errors import BrokerUnavailableError
from sqspipes.runner.outage import FIRST_PAUSE, LONGEST_PAUSE, Outage, pause

DOWN = BrokerUnavailableError("connection refused")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "sqspipes")
    return caplog


def test_failure_that_the_next_try_mends_is_no_outage(log: pytest.LogCaptureFixture) -> None:
    outage = Outage("sqs://")
    for _ in range(3):
        outage.failed("send a", DOWN, 1)
        assert outage.error is None
        outage.succeeded("send a")
    assert not log.records


def test_outage_is_said_once_when_it_begins_and_once_when_it_ends(log: pytest.LogCaptureFixture) -> None:
    outage = Outage("sqs://")
    for tries in range(1, 10):
        outage.failed("send a", DOWN, tries)
    assert [record.levelname for record in log.records] == ["WARNING"]
    assert log.messages == ["sqs:// does not answer, trying again until it does: connection refused"]
    assert outage.error == "connection refused"
    outage.succeeded("send a")
    outage.succeeded("send a")
    assert len(log.messages) == 2
    assert log.messages[1].startswith("sqs:// answers again after 0.")
    assert "8 failed requests" in log.messages[1]
    assert outage.error is None


def test_second_outage_is_said_anew(log: pytest.LogCaptureFixture) -> None:
    outage = Outage("sqs://")
    for _ in range(2):
        outage.failed("send a", DOWN, 1)
        outage.failed("send a", DOWN, 2)
        outage.succeeded("send a")
    assert len(log.messages) == 4
    assert all("1 failed requests" in text for text in log.messages[1::2])


def test_other_parties_do_not_end_an_outage(log: pytest.LogCaptureFixture) -> None:
    outage = Outage("sqs://")
    for tries in range(1, 5):
        outage.failed("send a", DOWN, tries)
        outage.succeeded("receive b")
    assert len(log.messages) == 1
    outage.failed("receive b", DOWN, 2)
    outage.succeeded("send a")
    assert len(log.messages) == 1
    outage.succeeded("receive b")
    assert len(log.messages) == 2
    assert outage.error is None


def test_error_is_the_newest_one() -> None:
    outage = Outage("sqs://")
    outage.failed("send a", DOWN, 2)
    outage.failed("send a", BrokerUnavailableError("throttled"), 3)
    assert outage.error == "throttled"


@given(st.integers(1, 10**9))
def test_pause_grows_to_a_cap(tries: int) -> None:
    most = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries, 60))
    assert 0.0 <= pause(tries) <= most
