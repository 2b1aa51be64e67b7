"""Any steps in any order: after each one a broker answers as the model of the FIFO rules does."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sqspipes.brokers.base import Broker, Entry
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.testing.broker_contract.steps import made, take, with_dead_letters
from tests.conftest import BrokerArguments, MakeBroker
from tests.contract.differences import leeway
from tests.contract.model import Model

QUEUES = st.sampled_from(["work", "work", "dead"])
COUNTS = st.sampled_from([1, 2, 3, 10])
#: Which of the messages that are held, in the order in which they came.
PICKS = st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)
#: Longer than any example takes: on SQS time is real.
LEASES = st.sampled_from([120.0, 600.0])
#: Group and id; nothing takes an entry without a group.
ENTRIES = st.tuples(st.sampled_from(["a", "b", "c", "d", ""]), st.integers(0, 9))
#: Up to the very ends of leases and of the time for which ids are known.
SPANS = st.sampled_from([1.0, 60.0, 119.0, 120.0, 180.0, 300.0])


class Clock:
    """The time, which only the machine lets pass. Where that is the broker's too, ``ours`` says so."""

    def __init__(self, *, ours: bool) -> None:
        self.ours = ours
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Fifo(RuleBasedStateMachine):
    """A broker and the model, step by step."""

    receipts: Bundle[str] = Bundle("receipts")

    def __init__(self, name: str, broker: Broker, clock: Clock) -> None:
        super().__init__()
        self.name, self.broker, self.clock = name, broker, clock
        self.sent = 0

    @initialize(max_receives=st.integers(1, 3), waits=st.sampled_from([0, 0, 1]))
    def make_queues(self, max_receives: int, waits: int) -> None:
        domain = f"model_{uuid.uuid4().hex[:12]}"
        work, dead = with_dead_letters(self.broker, domain, max_receives)
        self.queues = {"work": work, "dead": dead}
        self.model = Model(work, dead, max_receives, frozenset(leeway(self.name)))
        #: How often this example may wait for real time to pass.
        self.waits = waits

    @rule(queue=QUEUES, entries=st.lists(ENTRIES, min_size=1, max_size=10))
    def send(self, queue: str, entries: Sequence[tuple[str, int]]) -> None:
        batch = [Entry(f"m{self.sent + i}", group, str(id)) for i, (group, id) in enumerate(entries)]
        self.sent += len(batch)
        answers = self.broker.send(self.queues[queue], batch)
        self.model.sent(self.queues[queue], batch, answers, self.clock.now)

    @precondition(lambda self: self.model.messages)
    @rule(target=receipts, queue=QUEUES, count=COUNTS, lease=LEASES)
    def receive(self, queue: str, count: int, lease: float) -> Any:
        return multiple(*self._receive(self.queues[queue], count, lease))

    @rule(queue=QUEUES, receipts=st.lists(receipts | st.just("unknown"), min_size=1, max_size=4))
    def ack(self, queue: str, receipts: Sequence[str]) -> None:
        self._ack(self.queues[queue], receipts)

    @rule(
        queue=QUEUES,
        receipts=st.lists(receipts | st.just("unknown"), min_size=1, max_size=4, unique=True),
        seconds=st.sampled_from([0.0, 120.0, 600.0]),
    )
    def extend(self, queue: str, receipts: Sequence[str], seconds: float) -> None:
        self._extend(self.queues[queue], [(receipt, seconds) for receipt in receipts])

    @precondition(lambda self: self.holds)
    @rule(queue=QUEUES, picks=PICKS)
    def ack_held(self, queue: str, picks: Sequence[int]) -> None:
        if held := self._held(queue, picks):
            self._ack(self.queues[queue], held)

    @precondition(lambda self: self.holds)
    @rule(queue=QUEUES, picks=PICKS)
    def give_back(self, queue: str, picks: Sequence[int]) -> None:
        if held := self._held(queue, picks):
            self._extend(self.queues[queue], [(receipt, 0.0) for receipt in held])

    @precondition(lambda self: self.holds and (self.clock.ours or self.waits))
    @rule(queue=QUEUES, picks=PICKS)
    def let_leases_end(self, queue: str, picks: Sequence[int]) -> None:
        if held := self._held(queue, picks):
            self._extend(self.queues[queue], [(receipt, 1.0) for receipt in held])
            self._pass(1.0)

    @precondition(lambda self: self.clock.ours)
    @rule(seconds=SPANS)
    def let_time_pass(self, seconds: float) -> None:
        self._pass(seconds)

    @invariant()
    def depths_are_those_of_the_model(self) -> None:
        if self.broker.limits.exact:
            self._count()

    def teardown(self) -> None:
        """Empty the queues: nothing is lost, nothing is stuck."""
        if not hasattr(self, "model") or self.model.refused:
            return
        self._count()
        for queue in self.queues.values():
            held = self.model.held(queue, self.clock.now)
            for start in range(0, len(held), 10):
                self._ack(queue, held[start : start + 10])
            while receipts := self._receive(queue, 10, 600.0):
                self._ack(queue, receipts)
        assert self.model.messages == []

    @property
    def holds(self) -> bool:
        """Whether anything is in flight."""
        return any(message.held(self.clock.now) for message in self.model.messages)

    def _held(self, queue: str, picks: Sequence[int]) -> list[str]:
        held = self.model.held(self.queues[queue], self.clock.now)
        return [held[pick] for pick in picks if pick < len(held)]

    def _receive(self, queue: str, count: int, lease: float) -> list[str]:
        deliveries = take(self.broker, queue, count, lease=lease)
        self.model.received(queue, count, lease, deliveries, self.clock.now)
        return [delivery.receipt for delivery in deliveries]

    def _ack(self, queue: str, receipts: Sequence[str]) -> None:
        self.model.acked(queue, receipts, self.broker.ack(queue, receipts), self.clock.now)

    def _extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> None:
        self.model.extended(queue, leases, self.broker.extend(queue, leases), self.clock.now)

    def _count(self) -> None:
        depths = {queue: self.broker.depth(queue) for queue in self.queues.values()}
        self.model.counted(depths, self.clock.now)

    def _pass(self, seconds: float) -> None:
        if not self.clock.ours:
            self.waits -= 1
            (empty,) = made(self.broker, self.queues["work"].partition("--")[0], "empty")
            assert take(self.broker, empty, wait=seconds) == []
        self.clock.now += seconds


@pytest.fixture
def clock(broker_name: str) -> Clock:
    """A clock that all brokers go by but a service."""
    return Clock(ours="time is real" not in leeway(broker_name))


@pytest.fixture
def timed_broker(
    broker_name: str, clock: Clock, make_broker: MakeBroker, broker_arguments: BrokerArguments, tmp_path: Path
) -> Iterator[Broker]:
    """Each broker in turn, by the clock if it can be."""
    if not clock.ours:
        yield make_broker(broker_name)
        return
    made: Broker
    if broker_name == "redis":
        made = RedisBroker(broker_arguments("redis")["broker"], clock=clock)
    else:
        url = "memory://" if broker_name == "memory" else f"sqlite:///{tmp_path}/model.db?synchronous=NORMAL"
        made = SqliteBroker(url, clock=clock)
    with contextlib.closing(made) as broker:
        yield broker


# When it fails, hypothesis makes the example smaller for up to five minutes.
@pytest.mark.timeout(480)
def test_broker_answers_as_the_model_does(broker_name: str, timed_broker: Broker, clock: Clock) -> None:
    class Here(Fifo):
        def __init__(self) -> None:
            super().__init__(broker_name, timed_broker, clock)

    examples = settings().max_examples
    run_state_machine_as_test(
        Here,
        settings=settings(
            # A step on SQS is a request or two, and now and then a second.
            max_examples=examples if clock.ours else examples // 5,
            deadline=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
