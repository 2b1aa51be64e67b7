"""Leases: what is held is known again, extended in time, and never for longer than the broker allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.calls.held import Held
from sqspipes.engine.leases import MOST_STALE, REMEMBERED_SECONDS, LeaseClock, Leases
from sqspipes.support import clocks
from tests.builders import delivery_of, held_of

LONGEST = 43_200.0
LEASE = 60.0


class Hands(LeaseClock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def now(self) -> float:
        """Return the seconds."""
        return self.seconds


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def leases(clock: Hands) -> Leases:
    return Leases(clock, LONGEST, lambda due: None)


def held_in(leases: Leases) -> Held:
    held = held_of(lease=LEASE, received=leases.clock.now())
    leases.hold([held])
    return held


def test_redelivery_of_what_is_held_brings_a_new_receipt(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    clock.seconds = 70.0
    assert not leases.alive(held)
    redelivery = delivery_of(id=held.delivery.id, receives=2)
    assert leases.renew(redelivery, 70.0, LEASE)
    assert held.receipt == redelivery.receipt
    assert leases.alive(held)
    assert held.expires == 130.0
    assert len(leases) == 1


def test_lost_lease_is_found_again_by_its_redelivery(leases: Leases) -> None:
    held = held_in(leases)
    held.lost = True
    assert not leases.alive(held)
    assert leases.renew(delivery_of(id=held.delivery.id), 0.0, LEASE)
    assert leases.alive(held)


def test_same_id_in_another_queue_is_another_message(leases: Leases) -> None:
    held = held_in(leases)
    assert not leases.renew(delivery_of(id=held.delivery.id, queue="other.fifo"), 0.0, LEASE)


def test_what_was_dropped_is_not_known_any_more(leases: Leases) -> None:
    held = held_in(leases)
    leases.drop(held)
    leases.drop(held)
    assert not leases.renew(held.delivery, 0.0, LEASE)
    assert leases.rest() == []


def test_drop_of_an_older_delivery_leaves_the_newer_one(leases: Leases) -> None:
    old = held_in(leases)
    new = held_of(id=old.delivery.id)
    leases.hold([new])
    leases.drop(old)
    assert leases.rest() == [new]


def test_lease_is_due_at_half_time(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    assert leases.due() == ([], 30.0)
    clock.seconds = 30.0
    assert leases.due() == ([held], None)
    assert leases.due() == ([], None)


def test_extended_lease_is_due_half_a_lease_after_it_was_asked_for(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    clock.seconds = 30.0
    leases.due()
    leases.extended(held, 31.0, LEASE)
    assert held.expires == 91.0
    assert leases.due() == ([], 61.0)


def test_settled_lease_is_never_extended(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    leases.drop(held)
    leases.extended(held, 10.0, LEASE)
    assert held.expires == 60.0
    clock.seconds = 1_000.0
    assert leases.due() == ([], None)


def test_renewed_lease_is_not_extended_at_the_old_time(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    leases.renew(delivery_of(id=held.delivery.id), 20.0, LEASE)
    clock.seconds = 30.0
    assert leases.due() == ([], 50.0)


def test_lease_ends_with_its_time(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    clock.seconds = 59.9
    assert leases.alive(held)
    clock.seconds = 60.0
    assert not leases.alive(held)


@given(st.floats(0, LONGEST))
def test_lease_is_never_extended_past_the_brokers_longest(now: float) -> None:
    clock = Hands()
    leases = Leases(clock, LONGEST, lambda due: None)
    held = held_in(leases)
    clock.seconds = now
    assert leases.wanted(held) <= LEASE
    assert now + leases.wanted(held) <= LONGEST + 1e-6


def test_what_was_handed_on_is_remembered_for_five_minutes(leases: Leases, clock: Hands) -> None:
    held = held_in(leases)
    assert not leases.was_handed_on(held.delivery)
    assert leases.remember(held, held.receipt)
    assert leases.rest() == []
    redelivery = delivery_of(id=held.delivery.id, receives=2)
    assert leases.was_handed_on(redelivery)
    clock.seconds = REMEMBERED_SECONDS
    assert not leases.was_handed_on(redelivery)


def test_what_has_returned_already_is_not_remembered_but_still_held(leases: Leases) -> None:
    held = held_in(leases)
    asked = held.receipt
    leases.renew(delivery_of(id=held.delivery.id, receives=2), 0.0, LEASE)
    assert not leases.remember(held, asked)
    assert leases.rest() == [held]
    assert not leases.was_handed_on(held.delivery)


def test_what_was_acknowledged_in_the_end_is_forgotten(leases: Leases) -> None:
    held = held_in(leases)
    assert leases.remember(held, held.receipt)
    leases.forget(held.delivery)
    leases.forget(held.delivery)
    assert not leases.was_handed_on(held.delivery)


def test_memory_does_not_grow_for_ever(leases: Leases, clock: Hands) -> None:
    for second in range(1_000):
        clock.seconds = float(second)
        held = held_in(leases)
        leases.remember(held, held.receipt)
    assert len(leases._handed_on) <= REMEMBERED_SECONDS + 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["hold", "renew", "drop", "remember", "due", "extended"]), st.integers(0, 3),
                  st.integers(0, 40)),
        max_size=60,
    )
)  # fmt: skip
def test_every_lease_that_is_held_is_due_before_it_ends(steps: list[tuple[str, int, int]]) -> None:
    clock = Hands()
    leases = Leases(clock, LONGEST, lambda due: None)
    helds: dict[int, Held] = {}
    asked: set[Held] = set()  # an extension is under way, or the lease has ended
    for step, number, seconds in steps:
        clock.seconds += seconds
        held = helds.get(number)
        if step == "hold" and held is None:
            helds[number] = held_in(leases)
        elif step == "renew" and held is not None:
            assert leases.renew(delivery_of(id=held.delivery.id), clock.seconds, LEASE)
            asked.discard(held)
        elif step == "drop" and held is not None:
            leases.drop(helds.pop(number))
        elif step == "remember" and held is not None:
            assert leases.remember(helds.pop(number), held.receipt)
        elif step == "due":
            due, after = leases.due()
            assert not asked & set(due)
            asked.update(due)
            assert after is None or after > clock.seconds
        elif step == "extended" and held in asked:
            leases.extended(held, clock.seconds, LEASE)
            asked.discard(held)
        assert set(leases.rest()) == set(helds.values())
    for held in helds.values():
        if held not in asked:
            clock.seconds = max(clock.seconds, held.extend_at)
            assert held.extend_at < held.expires
    due, _ = leases.due()
    assert set(due) == set(helds.values()) - asked


def test_clock_goes_forward_with_the_machine() -> None:
    clock = LeaseClock()
    first = clock.now()
    assert 0.0 <= first <= clock.now() < 60.0


def test_clock_counts_a_suspended_machines_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, boottime = LeaseClock(), clocks.boottime
    monkeypatch.setattr(clocks, "boottime", lambda: boottime() + 3_600.0)
    assert 3_600.0 <= clock.now() < 3_660.0


def test_leases_that_have_ended_leave_next_to_nothing_behind(clock: Hands) -> None:
    leases = Leases(clock, LONGEST, lambda due: None)
    kept = held_in(leases)
    for _ in range(20 * MOST_STALE):
        leases.drop(held_in(leases))
    assert len(leases._due) <= MOST_STALE + 3
    clock.seconds = LEASE
    assert leases.due()[0] == [kept]
