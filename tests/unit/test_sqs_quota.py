"""Quota: the pace settles at what the queue takes, hardly anything is throttled, and nothing is held back before."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from sqspipes.brokers.sqs.quota import CUT_SECONDS, KEPT, LEAST, Quota


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bucket:
    """A queue that takes ``rate`` requests a second and 30 at once, as AWS's and other token buckets do."""

    def __init__(self, rate: float, clock: Hands) -> None:
        self.rate = rate
        self._clock = clock
        self._tokens, self._at = 30.0, clock.now

    def takes(self) -> bool:
        now = self._clock.now
        self._tokens = min(30.0, self._tokens + self.rate * (now - self._at))
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def played(
    senders: list[Quota],
    clock: Hands,
    bucket: Bucket,
    seconds: float,
    busy: Callable[[float], bool] | None = None,
) -> tuple[float, float]:
    """Let four threads of each sender ask without a pause, 10 ms an answer; return answers a second, and the share
    of throttled ones.
    """
    taken = throttled = 0
    chance, end = random.Random(7), clock.now + seconds
    asking = [(clock.now + chance.random() / 100, number) for number in range(4 * len(senders))]
    heapq.heapify(asking)
    waiting: set[int] = set()
    while asking and asking[0][0] < end:
        clock.now, number = heapq.heappop(asking)
        quota = senders[number % len(senders)]
        if number not in waiting and (pause := quota.turn()) > 0:
            waiting.add(number)
            heapq.heappush(asking, (clock.now + pause, number))
            continue
        waiting.discard(number)
        if bucket.takes():
            taken += 1
            quota.answered()
            heapq.heappush(asking, (clock.now + 0.01, number))
        else:
            throttled += 1
            quota.throttled()
            heapq.heappush(asking, (clock.now + 0.01 + chance.random() / 20, number))
    return taken / seconds, throttled / (taken + throttled)


@pytest.mark.parametrize(("rate", "processes"), [(100.0, 1), (300.0, 1), (300.0, 3)])
def test_pace_settles_at_what_the_queue_takes(rate: float, processes: int) -> None:
    clock = Hands()
    bucket, quotas = Bucket(rate, clock), [Quota(clock) for _ in range(processes)]
    played(quotas, clock, bucket, 10)
    answered, throttled = played(quotas, clock, bucket, 60)
    assert answered > 0.93 * rate
    assert throttled < 0.02


def test_pace_grows_with_the_quota() -> None:
    clock = Hands()
    bucket, quota = Bucket(100.0, clock), Quota(clock)
    played([quota], clock, bucket, 10)
    bucket.rate = 300.0
    played([quota], clock, bucket, 180)
    answered, throttled = played([quota], clock, bucket, 30)
    assert answered > 0.9 * 300
    assert throttled < 0.02


def test_nothing_is_held_back_before_a_request_was_throttled() -> None:
    clock = Hands()
    quota = Quota(clock)
    assert [quota.turn() for _ in range(1_000)] == [0.0] * 1_000


def test_requests_that_are_throttled_together_slow_it_down_once() -> None:
    clock = Hands()
    quota = Quota(clock)
    for _ in range(100):
        clock.now += 0.01
        quota.answered()
    for _ in range(8):
        quota.throttled()
    quota.turn()
    assert quota.turn() == pytest.approx(1 / (100 * KEPT), rel=0.05)


def test_some_requests_are_tried_whatever_is_throttled() -> None:
    clock = Hands()
    quota = Quota(clock)
    for _ in range(50):
        clock.now += 2 * CUT_SECONDS
        quota.throttled()
    quota.turn()
    assert quota.turn() == pytest.approx(1 / LEAST, rel=0.05)
