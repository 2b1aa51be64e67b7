"""The engine's batcher: full requests, lingers, keys in order, and entries that are asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sqspipes.brokers.base import OK, Answer, Kind
from sqspipes.brokers.exchange import Ack, Request
from sqspipes.defaults import MOST_GATHERING_SECONDS
from sqspipes.engine.batcher import Batcher, Item, Job
from sqspipes.errors import BrokerUnavailableError
from sqspipes.support import outage
from tests.unit.engine_parts import Engine

AGAIN = Answer(Kind.AGAIN, "busy")
LINGER = 0.05


class Gathering:
    """A batcher of numbers, and what was answered of them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.answered: list[tuple[int, Answer]] = []
        self.unfit: set[int] = set()
        job: Job[int] = Job("ack q", self._request, self.answered.extend, self._unfit)
        self.batcher: Batcher[int] = Batcher(job, engine.requests, engine.limits)

    def _request(self, payloads: Sequence[int]) -> Request:
        return Ack("q", list(map(str, payloads)))

    def _unfit(self, payload: int) -> Answer | None:
        return Answer(Kind.GONE) if payload in self.unfit else None

    def add(self, *payloads: int, key: str | None = None, size: int = 0, linger: float = LINGER) -> None:
        """Add entries that are due after a linger."""
        for payload in payloads:
            self.batcher.add([Item(payload, self.engine.clock.now + linger, key, size)])

    @property
    def asked(self) -> list[list[str]]:
        """What was asked so far, request by request."""
        return [request.receipts for request in self.engine.exchange.asked]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    second: Any = type("Second", (), {"seconds": staticmethod(lambda tries: 1.0)})
    monkeypatch.setattr(outage, "BACKOFF", second)
    engine = Engine()
    yield engine
    engine.loop.close()


@pytest.fixture
def gathering(engine: Engine) -> Gathering:
    return Gathering(engine)


def texts(*numbers: int) -> list[str]:
    return list(map(str, numbers))


def test_full_request_leaves_at_once(gathering: Gathering) -> None:
    gathering.add(*range(10))
    assert gathering.asked == [texts(*range(10))]


def test_request_that_is_not_full_leaves_when_an_entry_is_due(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, linger=0.2)
    gathering.add(2, linger=0.1)
    engine.turn(0.09)
    assert gathering.asked == []
    engine.turn(0.02)
    assert gathering.asked == [texts(1, 2)]


def test_what_is_due_gathers_more_while_a_request_is_under_way(gathering: Gathering, engine: Engine) -> None:
    gathering.add(*range(10))
    gathering.add(10, linger=0.0)
    engine.turn(MOST_GATHERING_SECONDS / 2)
    assert len(gathering.asked) == 1
    engine.answer_ok()
    assert gathering.asked[1:] == [texts(10)]


def test_request_that_hangs_holds_up_the_next_one_for_a_moment_only(
    gathering: Gathering, engine: Engine
) -> None:
    gathering.add(*range(10))
    gathering.add(10, linger=0.0)
    engine.pass_time(MOST_GATHERING_SECONDS + 0.05)
    assert gathering.asked[1:] == [texts(10)]


def test_no_more_requests_are_under_way_than_gain_something(gathering: Gathering, engine: Engine) -> None:
    gathering.add(*range(40))
    assert len(gathering.asked) == engine.limits.requests_in_flight == 2
    engine.answer_ok()
    assert len(gathering.asked) == 3


def test_request_holds_no_more_bytes_than_allowed(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, 2, 3, size=engine.limits.request_bytes // 2)
    engine.pass_time(LINGER + MOST_GATHERING_SECONDS + 0.05)
    assert gathering.asked == [texts(1, 2), texts(3)]


def test_key_is_in_one_request_at_a_time_and_in_order(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, 2, 3, key="k", linger=0.0)
    gathering.add(4, key="other", linger=0.0)
    engine.pass_time(1.0)
    assert gathering.asked == [texts(1), texts(4)]
    engine.answer_ok()
    engine.pass_time(1.0)
    assert gathering.asked[2:] == [texts(2)]
    engine.answer_ok(1)
    engine.pass_time(1.0)
    assert gathering.asked[3:] == [texts(3)]


def test_entry_that_is_to_be_asked_again_rests_and_holds_up_only_its_key(
    gathering: Gathering, engine: Engine
) -> None:
    gathering.add(1, 2, key="k", linger=0.0)
    gathering.add(3, linger=0.0)
    engine.pass_time(0.5)
    first, rest = engine.exchange.open
    assert (first.request, rest.request) == (Ack("q", texts(1)), Ack("q", texts(3)))
    engine.answer([AGAIN])
    engine.answer_ok()
    engine.pass_time(0.5)
    assert gathering.asked[2:] == []
    engine.pass_time(1.0)
    assert gathering.asked[2:] == [texts(1)]
    engine.answer_ok()
    engine.pass_time(0.5)
    assert gathering.asked[3:] == [texts(2)]
    engine.answer_ok()
    assert [payload for payload, _ in gathering.answered] == [3, 1, 2]
    assert not gathering.batcher.is_pending


def test_request_is_repeated_as_it_was_during_an_outage(gathering: Gathering, engine: Engine) -> None:
    gathering.add(*range(10))
    engine.answer(BrokerUnavailableError("away"))
    gathering.add(*range(10, 20))
    engine.pass_time(1.1)
    assert gathering.asked == [texts(*range(10)), texts(*range(10, 20)), texts(*range(10))]


def test_what_is_not_to_be_asked_any_more_is_answered_at_once(gathering: Gathering, engine: Engine) -> None:
    gathering.unfit = {1}
    gathering.add(1, 2, linger=0.0)
    engine.pass_time(1.0)
    assert gathering.asked == [texts(2)]
    assert gathering.answered == [(1, Answer(Kind.GONE))]
    engine.answer_ok()
    assert gathering.answered[1:] == [(2, OK)]


def test_hurried_batcher_waits_for_nothing(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, linger=60.0)
    gathering.batcher.hurry()
    gathering.add(2, linger=60.0)
    assert gathering.asked == [texts(1), texts(2)]


def test_hurried_batcher_asks_again_at_once_for_what_rests(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, linger=0.0)
    engine.answer([AGAIN])
    assert gathering.asked == [texts(1)]
    gathering.batcher.hurry()
    assert gathering.asked == [texts(1), texts(1)]
    engine.pass_time(2.0)
    assert len(gathering.asked) == 2


def test_hastened_batcher_lingers_again_afterwards(gathering: Gathering, engine: Engine) -> None:
    gathering.add(1, linger=60.0)
    gathering.batcher.hasten()
    engine.answer_ok()
    gathering.add(2, linger=60.0)
    engine.pass_time(1.0)
    assert gathering.asked == [texts(1)]
