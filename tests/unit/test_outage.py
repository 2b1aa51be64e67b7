"""Outage: one line when it begins, one when it is over, and pauses that grow."""

from __future__ import annotations

import logging
import statistics
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.errors import BrokerUnavailableError
from sqspipes.support.outage import (
    AWAY_SECONDS,
    BACKOFF,
    RETURN_SECONDS,
    Outage,
    pause_after_return,
)

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
    most = min(20.0, 0.05 * 2 ** min(tries, 60))
    assert 0.0 <= BACKOFF.seconds(tries) <= most


@pytest.mark.parametrize("tries", [1, 2, 3, 5, 9, 50])
def test_pause_has_full_jitter(tries: int) -> None:
    most = min(20.0, 0.05 * 2**tries)
    pauses = [BACKOFF.seconds(tries) for _ in range(4000)]
    assert 0.0 <= min(pauses) < 0.02 * most
    assert 0.98 * most < max(pauses) <= most
    quarters = statistics.quantiles(pauses, n=4)
    assert quarters == pytest.approx([0.25 * most, 0.5 * most, 0.75 * most], abs=0.05 * most)


def test_those_who_waited_for_the_broker_do_not_ask_all_at_once() -> None:
    pauses = [pause_after_return() for _ in range(4000)]
    assert 0.0 <= min(pauses) < 0.02 * RETURN_SECONDS
    assert 0.98 * RETURN_SECONDS < max(pauses) <= RETURN_SECONDS


# Many who ask


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def watched(clock: Hands) -> Outage:
    return Outage("sqs://", clock)


def test_requests_of_many_threads_are_one_outage(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage, together = Outage("sqs://"), threading.Barrier(8)
    # A thread that has just decided to write a line lets the others go on.
    monkeypatch.setattr(outage, "_clock", lambda: threading.Event().wait(0.01) or 0.0)

    def fail(party: str) -> None:
        together.wait()
        for tries in range(1, 20):
            outage.failed(party, DOWN, tries)
        together.wait()
        outage.succeeded(party)

    parties = [f"{action} {queue}" for action in ("receive", "send", "ack", "extend") for queue in "ab"]
    threads = [threading.Thread(target=fail, args=(party,)) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.messages) == 2
    assert log.messages[1].endswith(f" {8 * 18} failed requests")


def test_answer_after_the_broker_was_away_ends_the_pauses_of_all(watched: Outage, clock: Hands) -> None:
    resumed: list[float] = []
    watched.on_return(lambda: resumed.append(clock.now))
    watched.succeeded("receive a")
    watched.failed("send a", DOWN, 2)
    clock.now = AWAY_SECONDS
    watched.succeeded("receive a")
    assert not resumed, "one fails while others are answered: that one's pause is its own"
    clock.now = 3 * AWAY_SECONDS
    watched.succeeded("receive a")
    assert resumed == [clock.now]
