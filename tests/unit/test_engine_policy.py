"""The policy: calls that wait are left to threads, and come back after short trials; computing is no waiting."""

from __future__ import annotations

from sqspipes.engine.policy import (
    FIRST_DOUBT,
    GOOD_TRIALS,
    LONGEST_DOUBT,
    MOST_COUNTED,
    WORTH_A_THREAD,
    CallPolicy,
)

SHORT, LONG = WORTH_A_THREAD / 10, 0.05


def lasting() -> CallPolicy:
    """Return a policy that has met a first call that waited."""
    policy = CallPolicy()
    policy.learn(LONG, 0.0)
    assert not policy.is_short(0.0)
    return policy


def test_task_begins_with_calls_by_the_leader() -> None:
    assert CallPolicy().is_short(0.0)


def test_short_calls_stay_with_the_leader() -> None:
    policy = CallPolicy()
    for number in range(1_000):
        policy.learn(SHORT, float(number))
    assert policy.is_short(1_000.0)
    assert not policy.measures


def test_one_call_in_a_hundred_that_lasts_changes_nothing() -> None:
    policy = CallPolicy()
    for number in range(2_000):
        policy.learn(LONG if number % 100 == 99 else SHORT, 0.0)
        assert policy.is_short(0.0)


def test_calls_that_wait_are_left_to_threads() -> None:
    policy = CallPolicy()
    for _ in range(1_000):
        policy.learn(SHORT, 0.0)
    needed = 0
    while policy.is_short(0.0):
        policy.learn(LONG, 0.0)
        needed += 1
    assert 1 < needed <= 1 + WORTH_A_THREAD / (MOST_COUNTED / 64)


def test_trials_that_fail_come_ever_more_seldom() -> None:
    policy, now, pauses = lasting(), 0.0, []
    for _ in range(12):
        began = now
        while not policy.is_short(now):
            now += 0.01
        pauses.append(now - began)
        policy.learn(LONG, now)
    assert pauses[0] <= FIRST_DOUBT + 0.02
    assert pauses == sorted(pauses)
    assert LONGEST_DOUBT <= pauses[-1] <= LONGEST_DOUBT + 0.02


def test_some_short_trials_in_a_row_bring_calls_back() -> None:
    policy, now = lasting(), FIRST_DOUBT
    for _ in range(GOOD_TRIALS - 1):
        assert policy.is_short(now)
        policy.learn(SHORT, now)
    policy.learn(LONG, now)
    assert not policy.is_short(now)
    now += LONGEST_DOUBT
    for _ in range(GOOD_TRIALS):
        assert policy.is_short(now)
        policy.learn(SHORT, now)
    assert policy.is_short(0.0)


def test_what_calls_compute_is_asked_for_once_they_are_not_short_at_all() -> None:
    policy = CallPolicy()
    policy.learn(WORTH_A_THREAD / 2, 0.0)
    assert policy.measures
    assert policy.is_short(0.0)
