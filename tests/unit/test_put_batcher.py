"""PutBatcher: full requests, one of a key at a time, order per key whatever fails, an end when it is told."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqspipes.brokers.base import OK, Answer, Kind, Limits
from sqspipes.defaults import MOST_WAITING_BYTES, MOST_WAITING_ITEMS
from sqspipes.errors import BrokerUnavailableError, QueueMissingError
from sqspipes.operations.put_batcher import PutBatcher, PutItem
from sqspipes.support import outage
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.support.outage import Outage

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 10.0

#: Seconds of an item's linger, or of a deadline, that no test waits for.
FOR_EVER = 3_600.0

AGAIN, NEVER = Answer(Kind.AGAIN, "busy"), Answer(Kind.NEVER, "no")
LIMITS = Limits(requests_in_flight=2)


@pytest.fixture(autouse=True, scope="module")
def short_pauses() -> Iterator[None]:
    """Tries follow one another within a millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outage, "BACKOFF", ExponentialBackoff(0.0002, 0.001, jitter=1.0))
        yield


@dataclass
class Queue:
    """What a batcher asks, and what it tells: each request is answered as the plan has it, then with OK.

    A step of the plan is None for a request that fails as a whole, or the answers of its entries. While ``gate``
    is closed, requests wait in it.
    """

    plan: deque[list[Answer] | None] = field(default_factory=deque)
    gate: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    requests: list[list[Any]] = field(default_factory=list)
    answered: list[tuple[Any, Answer]] = field(default_factory=list)
    deaths: list[tuple[str, BaseException]] = field(default_factory=list)
    under_way: Counter[Any] = field(default_factory=Counter)
    overlaps: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def batcher(self, limits: Limits = LIMITS) -> PutBatcher:
        return PutBatcher("send queue", self.request, self.answer, self.died, Outage("queue"), limits)

    def request(self, payloads: Sequence[Any]) -> list[Answer]:
        with self.changed:
            self.requests.append(list(payloads))
            keys = [payload[0] for payload in payloads if isinstance(payload, tuple)]
            self.overlaps += [key for key in keys if self.under_way[key]]
            self.under_way.update(keys)
            step = self.plan.popleft() if self.plan else [OK] * len(payloads)
            self.changed.notify_all()
        assert self.gate.wait(PATIENCE)
        with self.changed:
            self.under_way.subtract(keys)
        if step is None:
            raise BrokerUnavailableError("down")
        return (step * len(payloads))[: len(payloads)]

    def answer(self, pairs: list[tuple[Any, Answer]]) -> None:
        with self.changed:
            self.answered += pairs
            self.changed.notify_all()

    def died(self, name: str, error: BaseException) -> None:
        with self.changed:
            self.deaths.append((name, error))
            self.changed.notify_all()

    def wait_for_requests(self, count: int) -> list[list[Any]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, PATIENCE), self.requests
            return list(self.requests)

    def wait_for_answers(self, count: int) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.answered) >= count, PATIENCE), self.answered
            return [payload for payload, _ in self.answered]

    def wait_for_death(self) -> tuple[str, BaseException]:
        with self.changed:
            assert self.changed.wait_for(lambda: self.deaths, PATIENCE)
            return self.deaths[0]


def soon(seconds: float = PATIENCE) -> float:
    """Return a deadline."""
    return time.monotonic() + seconds


def test_request_leaves_when_it_is_full_however_long_its_items_may_wait() -> None:
    queue = Queue()
    batcher = queue.batcher()
    for number in range(LIMITS.entries):
        batcher.add(PutItem(number, linger=FOR_EVER))
    assert queue.wait_for_requests(1) == [list(range(LIMITS.entries))]
    assert batcher.close(soon())


def test_request_leaves_unfilled_when_an_item_is_due() -> None:
    queue = Queue()
    batcher = queue.batcher()
    began = time.monotonic()
    batcher.add(PutItem("patient", linger=FOR_EVER))
    batcher.add(PutItem("hasty", linger=0.05))
    assert queue.wait_for_requests(1) == [["patient", "hasty"]]
    assert time.monotonic() - began >= 0.05
    assert batcher.close(soon())


def test_what_gathers_during_a_request_goes_in_full_ones() -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher(replace(LIMITS, requests_in_flight=1))
    batcher.add(PutItem("first"))
    queue.wait_for_requests(1)
    for number in range(25):
        batcher.add(PutItem(number))
    queue.gate.set()
    assert batcher.close(soon())
    assert [len(request) for request in queue.requests] == [1, 10, 10, 5]
    assert queue.wait_for_answers(26) == ["first", *range(25)]


def test_several_requests_are_under_way_when_there_is_enough() -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher(replace(LIMITS, requests_in_flight=3))
    for number in range(50):
        batcher.add(PutItem(number))
    queue.wait_for_requests(3)
    queue.gate.set()
    assert batcher.close(soon())
    assert sorted(queue.wait_for_answers(50)) == list(range(50))


def test_request_that_hangs_does_not_hold_up_the_rest() -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher()
    batcher.add(PutItem("hangs"))
    queue.wait_for_requests(1)
    batcher.add(PutItem("goes"))
    assert queue.wait_for_requests(2) == [["hangs"], ["goes"]]
    queue.gate.set()
    assert batcher.close(soon())


def test_items_of_one_key_go_one_a_request() -> None:
    queue = Queue()
    batcher = queue.batcher()
    for number in range(3):
        batcher.add(PutItem(("a", number), "a"))
        batcher.add(PutItem(("b", number), "b"))
    assert batcher.close(soon())
    for request in queue.requests:
        assert len({key for key, _ in request}) == len(request)
    assert not queue.overlaps


def test_items_without_a_key_may_share_a_request() -> None:
    queue = Queue()
    batcher = queue.batcher()
    for number in range(9):
        batcher.add(PutItem(number, linger=FOR_EVER))
    assert batcher.close(soon())
    assert queue.requests == [list(range(9))]


def test_entry_that_must_go_again_is_not_overtaken_by_its_key() -> None:
    queue = Queue(plan=deque([[AGAIN], None, [AGAIN], [OK]]))
    batcher = queue.batcher()
    for number in range(3):
        batcher.add(PutItem(("a", number), "a"))
    assert queue.wait_for_answers(3) == [("a", 0), ("a", 1), ("a", 2)]
    assert [request[0][1] for request in queue.requests] == [0, 0, 0, 0, 1, 2]
    assert batcher.close(soon())


def test_final_answers_are_passed_on_as_they_are() -> None:
    gone = Answer(Kind.GONE, "lease lost")
    queue = Queue(plan=deque([[OK, NEVER, gone]]))
    batcher = queue.batcher()
    for number in range(3):
        batcher.add(PutItem(number, linger=FOR_EVER))
    assert batcher.close(soon())
    assert queue.answered == [(0, OK), (1, NEVER), (2, gone)]


def test_request_keeps_below_its_bytes() -> None:
    queue = Queue()
    batcher = queue.batcher(replace(LIMITS, request_bytes=100))
    for number, size in enumerate([60, 40, 1, 100, 30, 500, 30]):
        batcher.add(PutItem(number, size=size, linger=FOR_EVER))
    assert batcher.close(soon())
    assert queue.requests == [[0, 1], [2], [3], [4], [5], [6]]


def test_close_asks_at_once_for_what_lingers() -> None:
    queue = Queue()
    batcher = queue.batcher()
    batcher.add(PutItem("patient", linger=FOR_EVER))
    assert batcher.close(soon())
    assert queue.answered == [("patient", OK)]


def test_close_of_a_batcher_that_never_had_work_is_done() -> None:
    assert Queue().batcher().close(soon(0.0))


def test_close_gives_up_at_its_deadline() -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher()
    batcher.add(PutItem("stuck"))
    queue.wait_for_requests(1)
    deadline = soon(0.05)
    assert not batcher.close(deadline)
    assert deadline <= time.monotonic() < deadline + PATIENCE / 2
    assert not batcher.wait_for_room()
    queue.gate.set()


def test_close_gives_up_on_a_broker_that_stays_away() -> None:
    queue = Queue(plan=deque([None] * 100_000))
    batcher = queue.batcher()
    batcher.add(PutItem("lost"))
    assert not batcher.close(soon(0.05))
    assert not queue.answered


def test_what_it_cannot_survive_is_told_and_ends_it() -> None:
    error = QueueMissingError("queue")

    def request(payloads: Sequence[Any]) -> list[Answer]:
        raise error

    queue = Queue()
    batcher = PutBatcher("send queue", request, queue.answer, queue.died, Outage("queue"), LIMITS)
    batcher.add(PutItem("lost"))
    assert queue.wait_for_death() == ("send queue", error)
    assert not batcher.wait_for_room()
    assert not batcher.close(soon())
    assert not queue.answered


def test_broker_that_forgets_an_entry_ends_it() -> None:
    queue = Queue()
    batcher = PutBatcher("send queue", lambda _: [], queue.answer, queue.died, Outage("queue"), LIMITS)
    batcher.add(PutItem("lost"))
    assert isinstance(queue.wait_for_death()[1], ValueError)
    assert not batcher.close(soon())


@pytest.mark.parametrize(
    ("count", "size"), [(MOST_WAITING_ITEMS, 1), (16, MOST_WAITING_BYTES // 16)], ids=["items", "bytes"]
)
def test_full_batcher_has_room_once_something_was_answered(count: int, size: int) -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher()
    for number in range(count):
        assert batcher.wait_for_room()
        batcher.add(PutItem(number, size=size))
    had_room_after: list[int] = []

    def wait() -> None:
        assert batcher.wait_for_room()
        had_room_after.append(len(queue.answered))

    waiter = threading.Thread(target=wait)
    waiter.start()
    queue.wait_for_requests(1)
    queue.gate.set()
    waiter.join(PATIENCE)
    assert had_room_after[0] > 0
    assert batcher.close(soon())


def test_waiting_for_room_ends_when_the_batcher_is_given_up() -> None:
    queue = Queue()
    queue.gate.clear()
    batcher = queue.batcher()
    for number in range(MOST_WAITING_ITEMS):
        batcher.add(PutItem(number))
    had_room: list[bool] = []
    waiter = threading.Thread(target=lambda: had_room.append(batcher.wait_for_room()))
    waiter.start()
    assert not batcher.close(soon(0.05))
    waiter.join(PATIENCE)
    assert had_room == [False]
    queue.gate.set()


def test_refusal_of_all_entries_again_and_again_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue(plan=deque([[AGAIN], [AGAIN, AGAIN], [AGAIN], [OK]]))
    batcher = queue.batcher()
    batcher.add(PutItem("one"))
    assert queue.wait_for_answers(1) == ["one"]
    assert batcher.close(soon())
    begins, ends = caplog.messages
    assert "does not answer" in begins
    assert begins.endswith("busy")
    assert "answers again" in ends


def test_requests_that_fail_together_rest_as_long_as_the_oldest_of_them() -> None:
    batcher = Queue().batcher()
    long, short = PutItem("tried often"), PutItem("new")
    batcher._repeat([long], FOR_EVER)
    batcher._repeat([short], 0.0)
    assert batcher._seconds_to_wait(time.monotonic()) > FOR_EVER / 2


def test_pause_ends_when_the_broker_answers_after_it_was_away() -> None:
    queue, way = Queue(plan=deque([None])), Outage("queue")
    batcher = PutBatcher("send queue", queue.request, queue.answer, queue.died, way, LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outage, "BACKOFF", ExponentialBackoff(1000 * FOR_EVER, 1000 * FOR_EVER, jitter=1.0))
        patch.setattr(outage, "AWAY_SECONDS", -1.0)
        way.failed("receive other", BrokerUnavailableError("down"), 2)
        batcher.add(PutItem("one"))
        queue.wait_for_requests(1)
        while batcher._paused_until == 0.0:
            threading.Event().wait(0.001)
        way.succeeded("receive other")
        assert queue.wait_for_answers(1) == ["one"]
    assert batcher.close(soon())


def test_close_does_not_wait_for_the_end_of_a_pause() -> None:
    queue = Queue(plan=deque([None]))
    batcher = queue.batcher()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outage, "BACKOFF", ExponentialBackoff(1000 * FOR_EVER, 1000 * FOR_EVER, jitter=1.0))
        batcher.add(PutItem("one"))
        queue.wait_for_requests(1)
        assert batcher.close(soon())
    assert queue.answered == [("one", OK)]


steps = st.one_of(st.none(), st.lists(st.sampled_from([OK, OK, AGAIN, NEVER]), min_size=1, max_size=10))
items = st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(0, 60))


@settings(max_examples=150, deadline=None)
@given(
    given=st.lists(items, max_size=60),
    plan=st.lists(steps, max_size=25),
    in_flight=st.integers(1, 4),
    entries=st.integers(1, 10),
)
def test_every_item_is_answered_once_and_in_order_whatever_fails(
    given: list[tuple[str | None, int]], plan: list[list[Answer] | None], in_flight: int, entries: int
) -> None:
    queue = Queue(plan=deque(plan))
    batcher = queue.batcher(Limits(requests_in_flight=in_flight, entries=entries, request_bytes=100))
    sizes = {}
    for number, (key, size) in enumerate(given):
        payload = (key if key is not None else number, number)
        sizes[payload] = size
        batcher.add(PutItem(payload, key, size))
    assert batcher.close(soon())
    assert not queue.deaths
    assert not queue.overlaps
    answered = [payload for payload, _ in queue.answered]
    assert Counter(answered) == Counter(list(sizes))
    assert all(answer.kind is not Kind.AGAIN for _, answer in queue.answered)
    for key in "abcd":
        numbers = [number for of, number in answered if of == key]
        assert numbers == sorted(numbers)
    for request in queue.requests:
        assert 1 <= len(request) <= entries
        assert len({key for key, _ in request}) == len(request)
        assert len(request) == 1 or sum(map(sizes.__getitem__, request)) <= 100
