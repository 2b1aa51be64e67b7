"""Lanes: one running call a lane, order within a lane, the best lane first, and nothing is ever lost."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sqspipes.calls.held import Held, State
from sqspipes.engine.lanes import Lanes
from tests.builders import held_of

LEVELS = 3


def started(lanes: Lanes) -> Held:
    """Start the next message and return it."""
    held = lanes.peek()
    assert held is not None
    lanes.start(held)
    return held


def test_highest_level_goes_first_then_redelivered_then_oldest() -> None:
    lanes = Lanes(LEVELS)
    low, new, other, redelivered, high = (
        held_of(level=0, group="low", receives=9),
        held_of(level=1, group="new"),
        held_of(level=1, group="other"),
        held_of(level=1, group="redelivered", receives=2),
        held_of(level=2, group="high"),
    )
    for held in (low, new, other, redelivered, high):
        lanes.add(held)
    assert [started(lanes) for _ in range(5)] == [high, redelivered, new, other, low]
    assert lanes.peek() is None


def test_second_message_of_a_group_waits_for_the_first() -> None:
    lanes = Lanes(1)
    first, second = held_of(), held_of()
    lanes.add(first)
    lanes.add(second)
    assert started(lanes) is first
    assert lanes.peek() is None
    lanes.finish(first)
    assert started(lanes) is second


def test_same_group_in_two_queues_is_two_lanes() -> None:
    lanes = Lanes(2)
    lanes.add(held_of(level=0))
    lanes.add(held_of(level=1))
    assert lanes.ready == 2


def test_parked_message_keeps_its_place_and_no_room() -> None:
    lanes = Lanes(1)
    first, second = held_of(), held_of()
    lanes.add(first)
    lanes.add(second)
    lanes.park(started(lanes), 10.0)
    assert (lanes.active, lanes.parked, lanes.waiting) == (0, 1, 1)
    assert lanes.next_wake() == 10.0
    assert lanes.wake(9.9) == 0
    assert lanes.wake(10.0) == 1
    assert started(lanes) is first


def test_message_that_is_dropped_takes_all_behind_it_along() -> None:
    lanes = Lanes(1)
    helds = [held_of() for _ in range(4)]
    for held in helds:
        lanes.add(held)
    running = started(lanes)
    assert lanes.drop(helds[2]) == helds[2:]
    assert lanes.drop(helds[2]) == []
    assert lanes.drop(running) == []
    assert lanes.drop_behind(running) == [helds[1]]
    assert not lanes.empty
    lanes.finish(running)
    assert lanes.empty


def test_parked_message_that_was_dropped_never_wakes() -> None:
    lanes = Lanes(1)
    held = held_of()
    lanes.add(held)
    lanes.park(started(lanes), 1.0)
    assert lanes.drop(held) == [held]
    assert lanes.next_wake() is None
    assert lanes.wake(2.0) == 0
    assert lanes.peek() is None


class Model:
    """The same, naively: a list per lane, and per message its place among the ready and the parked."""

    def __init__(self) -> None:
        self.lanes: dict[tuple[str, str], list[Held]] = {}
        self.ready: dict[Held, int] = {}
        self.parked: dict[Held, tuple[float, int]] = {}
        self.running: set[Held] = set()
        self.steps = 0

    def key(self, held: Held) -> tuple[str, str]:
        return held.delivery.queue, held.delivery.group

    def make_ready(self, held: Held) -> None:
        self.steps += 1
        self.ready[held] = self.steps

    def add(self, held: Held) -> None:
        lane = self.lanes.setdefault(self.key(held), [])
        lane.append(held)
        if len(lane) == 1:
            self.make_ready(held)

    def best(self) -> Held | None:
        def rank(held: Held) -> tuple[int, bool, int]:
            return -held.level, held.delivery.receives == 1, self.ready[held]

        return min(self.ready, key=rank, default=None)

    def start(self, held: Held) -> None:
        del self.ready[held]
        self.running.add(held)

    def finish(self, held: Held) -> None:
        self.running.remove(held)
        lane = self.lanes[self.key(held)]
        assert lane.pop(0) is held
        if lane:
            self.make_ready(lane[0])
        else:
            del self.lanes[self.key(held)]

    def park(self, held: Held, until: float) -> None:
        self.running.remove(held)
        self.steps += 1
        self.parked[held] = (until, self.steps)

    def wake(self, now: float) -> int:
        due = sorted(
            (place, held.delivery.id, held) for held, place in self.parked.items() if place[0] <= now
        )
        for _, _, held in due:
            del self.parked[held]
            self.make_ready(held)
        return len(due)

    def drop(self, held: Held) -> list[Held]:
        lane = self.lanes.get(self.key(held), [])
        if held not in lane or held in self.running:
            return []
        place = lane.index(held)
        dropped = lane[place:]
        del lane[place:]
        for one in dropped:
            self.ready.pop(one, None)
            self.parked.pop(one, None)
        if not lane:
            del self.lanes[self.key(held)]
        return dropped

    def held(self) -> list[Held]:
        return [held for lane in self.lanes.values() for held in lane]


class LanesMachine(RuleBasedStateMachine):
    """Lanes and the model go the same steps; after each one they agree."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(LEVELS)
        self.model = Model()
        self.now = 0.0
        self.added: list[Held] = []
        self.gone: list[Held] = []

    @rule(level=st.integers(0, LEVELS - 1), group=st.sampled_from("abcd"), receives=st.integers(1, 3))
    def add(self, level: int, group: str, receives: int) -> None:
        held = held_of(level=level, group=group, receives=receives)
        self.added.append(held)
        self.lanes.add(held)
        self.model.add(held)

    @rule()
    def start(self) -> None:
        best = self.model.best()
        assert self.lanes.peek() is best
        if best is not None:
            self.lanes.start(best)
            self.model.start(best)
            assert best.state is State.RUNNING

    @precondition(lambda self: self.model.running)
    @rule(choice=st.data())
    def finish(self, choice: st.DataObject) -> None:
        held = self.some_running(choice)
        self.lanes.finish(held)
        self.model.finish(held)
        self.gone.append(held)
        assert held.state is State.SETTLING

    @precondition(lambda self: self.model.running)
    @rule(choice=st.data(), seconds=st.integers(0, 3))
    def park(self, choice: st.DataObject, seconds: int) -> None:
        held = self.some_running(choice)
        self.lanes.park(held, self.now + seconds)
        self.model.park(held, self.now + seconds)

    @rule(seconds=st.integers(0, 3))
    def wake(self, seconds: int) -> None:
        self.now += seconds
        assert self.lanes.wake(self.now) == self.model.wake(self.now)

    @precondition(lambda self: self.added)
    @rule(choice=st.data())
    def drop(self, choice: st.DataObject) -> None:
        held = choice.draw(st.sampled_from(self.added))
        self.check_dropped(self.lanes.drop(held), self.model.drop(held))

    @precondition(lambda self: self.model.running)
    @rule(choice=st.data())
    def drop_behind(self, choice: st.DataObject) -> None:
        held = self.some_running(choice)
        lane = self.model.lanes[self.model.key(held)]
        expected = self.model.drop(lane[1]) if len(lane) > 1 else []
        self.check_dropped(self.lanes.drop_behind(held), expected)

    @rule()
    def drop_idle(self) -> None:
        expected: list[Held] = []
        for lane in list(self.model.lanes.values()):
            idle = [held for held in lane if held not in self.model.running]
            expected += self.model.drop(idle[0]) if idle else []
        self.check_dropped(self.lanes.drop_idle(), expected)

    def some_running(self, choice: st.DataObject) -> Held:
        running = sorted(self.model.running, key=lambda held: self.added.index(held))
        held: Held = choice.draw(st.sampled_from(running))
        return held

    def check_dropped(self, dropped: list[Held], expected: list[Held]) -> None:
        assert dropped == expected
        assert all(held.state is State.OVER and held.lane is None for held in dropped)
        self.gone += dropped

    @invariant()
    def counts_are_right(self) -> None:
        model, lanes = self.model, self.lanes
        assert (lanes.ready, lanes.running, lanes.parked) == (
            len(model.ready),
            len(model.running),
            len(model.parked),
        )
        assert lanes.waiting == sum(len(lane) - 1 for lane in model.lanes.values())
        assert lanes.active == lanes.ready + lanes.running
        assert lanes.empty == (not model.lanes)

    @invariant()
    def next_wake_is_the_earliest(self) -> None:
        assert self.lanes.next_wake() == min((place[0] for place in self.model.parked.values()), default=None)

    @invariant()
    def one_message_of_a_lane_runs(self) -> None:
        running = [self.model.key(held) for held in self.added if held.state is State.RUNNING]
        assert len(running) == len(set(running)) == self.lanes.running

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.gone) == len(set(self.gone))
        assert set(self.gone) | set(self.model.held()) == set(self.added)

    def teardown(self) -> None:
        """All that is still held can be run to its end, each lane in the order in which it was filled."""
        for held in sorted(self.model.running, key=lambda held: self.added.index(held)):
            self.lanes.finish(held)
            self.model.finish(held)
        self.wake(10)
        left: list[Held] = []
        while (held_next := self.lanes.peek()) is not None:
            left.append(held_next)
            self.lanes.start(held_next)
            self.lanes.finish(held_next)
        assert self.lanes.empty
        assert set(left) == set(self.model.held())
        places = [(self.model.key(held), self.added.index(held)) for held in left]
        for key, lane in self.model.lanes.items():
            assert [place for of, place in places if of == key] == [self.added.index(held) for held in lane]


def test_lanes_do_what_a_list_per_lane_would_do() -> None:
    run_state_machine_as_test(
        LanesMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )
