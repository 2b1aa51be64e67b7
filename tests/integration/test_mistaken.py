"""No message is taken for another one, whatever ids, groups and levels they share: each ends as result or letter."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqspipes import Output, Reject, RunError, TaskClient
from tests.conftest import BrokerArguments
from tests.integration.worlds import FORGOTTEN, LEASE, OVER, Clock, dying, foreign, move_letters

_worlds = itertools.count(1)

# What becomes of a world. A message makes its first task do one of five things: what it names has one id for all, and
# what dies half-way has handed on its first output.
kinds = st.sampled_from(["result", "outputs", "named", "dies", "half"])
groups = st.sampled_from([None, "x", "g"])
levels = st.integers(0, 1)
puts = st.tuples(st.just("put"), kinds, st.sampled_from([None, "x", "y"]), groups, levels)
foreigners = st.tuples(st.just("foreign"), kinds, st.booleans(), groups, levels)
ends = st.tuples(st.just("end"), st.sampled_from(["first", "middle"]), st.sampled_from([OVER, FORGOTTEN]))
waits = st.tuples(st.just("wait"), st.sampled_from([1.0, 150.0, FORGOTTEN]))
others = st.sampled_from([("run", None), ("run", "first"), ("redrive",), ("move",), ("mend",)])
lives = st.lists(puts | puts | foreigners | others | ends | waits, min_size=1, max_size=12)


class World:
    """A pipe on a clock of its own; it knows what was stored in it, and what has to come out."""

    def __init__(self, broker: str, *, batch: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.broker = dying(broker, self.clock)
        self.client = TaskClient(f"w{next(_worlds)}", broker=self.broker, lease=LEASE, retries=0, **options)
        self.arrived: list[Any] = []
        middle = {"method": many, "batch": 3, "batch_wait": 0.0} if batch else {"method": one}
        tasks: list[Any] = [
            {"method": self.first, "name": "first", "priorities": 2},
            {**middle, "name": "middle"},
        ]
        self.client.register_tasks(tasks if "output" in options else [*tasks, self.sink])
        self.client.create_queues()
        self._began = self.clock.now
        self._kinds: dict[int, str] = {}
        self._put: dict[Any, float] = {}
        self._numbers = itertools.count()
        self._is_mended = self._is_moved = False
        self._cut: dict[str, float] = {}  # when a run of a task ended that acknowledged nothing
        self._late: set[str] = set()  # tasks that ran again after their outputs' ids were forgotten

    # What happens

    def put(self, kind: str, id: str | None, group: str | None, level: int) -> None:
        """Put a message; it counts as one more unless it is known."""
        number, now = next(self._numbers), self.clock.now
        self.client.put({"n": number, "kind": kind}, id=id, group=group, priority=level)
        if id is None or now - self._put.get((id, group, level), 0.0) >= 300:
            self._put[id, group, level] = now
            self._kinds[number] = kind

    def foreign(self, kind: str, ours: bool, group: str | None, level: int) -> None:
        """Send another program's message, which brings an id and no time of its put; or one in our format."""
        number = next(self._numbers)
        value = {"n": number, "kind": kind}
        body = {"sqspipes": 1, "id": "x", "value": value} if ours else {"id": "x", "sqspipes": None, **value}
        foreign(self.broker, self.client.tasks[0].queue(level), body, group=group or f"alone-{number}")
        self._kinds[number] = kind

    def run(self, task: str | None) -> None:
        """Let everything go through, or through one task."""
        for name in [task] if task else ["first", "middle"]:
            if self.clock.now - self._cut.pop(name, self.clock.now) >= 300:
                self._late.add(name)
        self.client.run(task, drain=True)

    def end(self, task: str, seconds: float) -> None:
        """End a run of a task between hand-off and acknowledgement; its messages come again after their lease."""
        # An output that is sent again, and not stored again, is known no longer for that.
        first = self._cut.get(task, self.clock.now)
        self.broker.dies_for = self.client.get_task_by_name(task).queue(0)
        with contextlib.suppress(RunError):
            self.run(task)
        if self.broker.dies_for is None:
            self._cut[task] = first
        self.broker.dies_for = None
        self.clock.now += seconds

    def redrive(self) -> None:
        """Send all letters back."""
        self.client.redrive()

    def move(self) -> None:
        """Have another tool send all letters back."""
        self._is_moved |= move_letters(self.client, self.broker, "first") > 0

    def mend(self) -> None:
        """Let what died succeed from now on."""
        self._is_mended = True

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    # The tasks

    def first(self, value: dict[str, Any]) -> Any:
        """Do what a message wants."""
        n, kind = value["n"], value["kind"]
        if kind == "dies":
            self._die_unless_mended()
        if kind == "named":
            return Output([n, 0], id="named", group=f"of {n}")
        return self._several(n, kind) if kind in ("outputs", "half") else [n, 0]

    def _several(self, n: int, kind: str) -> Iterator[Any]:
        yield [n, 0]
        if kind == "half":
            self._die_unless_mended()
        yield [n, 1]
        yield [n, 1]

    def _die_unless_mended(self) -> None:
        if not self._is_mended:
            raise Reject("not yet")

    def sink(self, value: Any) -> None:
        """The last task."""
        self.arrived.append(value)

    # What has to be true, once everything has gone through

    def check(self) -> None:
        """What was stored has arrived or is a letter, as often as it was stored; and nothing else is there."""
        letters = Counter(letter.value["n"] for letter in self.client.dead_letters())
        arrived = Counter(map(tuple, self.results()))
        if "middle" not in self._late:
            assert arrived == Counter(self._stored_in_the_middle())
        for n, kind in self._kinds.items():
            self._check_message(n, kind, letters[n], arrived)
        assert {n for n, _ in arrived} | letters.keys() <= self._kinds.keys()

    def _check_message(self, n: int, kind: str, letters: int, arrived: Counter[Any]) -> None:
        wanted = {(n, 0): 1, (n, 1): 2} if kind in ("outputs", "half") else {(n, 0): 1}
        if letters:
            assert kind in ("dies", "half")
            assert letters == 1 or self._late
            wanted = {(n, 0): 1} if kind == "half" else {}
        again = bool(self._late)
        if kind == "half":  # its first output comes again: as another message's, or when its id was forgotten
            again |= self._is_moved or self.clock.now - self._began >= 300
        for part, count in wanted.items():
            assert arrived[part] == count or (again and arrived[part] > count), f"{part}: {arrived[part]}"

    def _stored_in_the_middle(self) -> Iterator[Any]:
        for queue in self.client.tasks[1].queues:
            for body in self.broker.handed_out.get(queue, {}).values():
                yield tuple(json.loads(body)["value"])

    def results(self) -> list[Any]:
        """Return what came out at the end."""
        return self.arrived

    def live(self, life: list[Any]) -> None:
        """Have all of it happen, and see to what is left in the end."""
        for name, *arguments in [*life, ("run", None)]:
            getattr(self, name)(*arguments)
            if (name, *arguments) == ("run", None):
                self.check()
        self.mend()
        # A message that was sent back, and came again as well, as its acknowledgement had been lost, has two letters.
        # One of them looks as if it had died again in this redrive: it is left for the next one.
        while self.client.redrive():
            self.run(None)
        self.run(None)
        self.check()
        assert not list(self.client.dead_letters())


class ListWorld(World):
    """The same, with results that are pushed to a plain list."""

    def __init__(self, broker: str, *, batch: bool = False) -> None:
        super().__init__(broker, batch=batch, output=f"rpush@mistaken-{next(_worlds)}")

    def results(self) -> list[Any]:
        with contextlib.closing(redis.Redis.from_url(self.broker.full_url.partition("?")[0])) as direct:
            key = str(self.client.output).partition("@")[2]
            return [json.loads(text) for text in direct.lrange(key, 0, -1)]


def one(value: Any) -> Output:
    """The middle task: all in one group."""
    return Output(value, group="warehouse")


def many(values: list[Any]) -> list[Output]:
    """The middle task, when it takes many at once."""
    return [one(value) for value in values]


@given(lives, st.booleans())
@settings(deadline=None)
def test_every_message_ends_as_a_result_or_a_letter(life: list[Any], batch: bool) -> None:
    world = World("memory://", batch=batch)
    with contextlib.closing(world.broker):
        world.live(life)


@given(lives, st.booleans())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_message_of_a_file_ends_as_a_result_or_a_letter(
    broker_arguments: BrokerArguments, life: list[Any], batch: bool
) -> None:
    world = World(broker_arguments("sqlite")["broker"], batch=batch)
    with contextlib.closing(world.broker):
        world.live(life)


@given(lives, st.booleans(), st.booleans())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_message_in_redis_ends_as_a_result_or_a_letter(
    broker_arguments: BrokerArguments, life: list[Any], batch: bool, listed: bool
) -> None:
    world = (ListWorld if listed else World)(broker_arguments("redis")["broker"], batch=batch)
    with contextlib.closing(world.broker):
        world.live(life)
