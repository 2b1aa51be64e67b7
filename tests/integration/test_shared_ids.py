"""Messages that share an id, over groups, levels and time, are messages of their own, on every broker."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

import pytest

from sqspipes import Output, Reject, RunError, Step, TaskClient, current_message
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker
from tests.conftest import BrokerArguments
from tests.integration.support import Seen, dead, piped, until
from tests.integration.worlds import FORGOTTEN, LEASE, OVER, Clock, dying, foreign, move_letters


def opened(arguments: dict[str, Any]) -> contextlib.closing[Broker]:
    """Open the broker that these arguments lead to, past the client."""
    others = dict(arguments)
    return contextlib.closing(open_broker(others.pop("broker"), **others))


def same(value: Any) -> Any:
    """Return the value."""
    return value


def gathered(value: Any) -> Output:
    """Return the value for the one group of all."""
    return Output(value, group="warehouse")


def gathered_together(values: list[Any]) -> list[Output]:
    """Return many values for the one group of all."""
    return [gathered(value) for value in values]


def refuse(value: Any) -> None:
    """Make a dead letter."""
    raise Reject("no")


def put_shared(client: TaskClient, task: str | None = None) -> list[str]:
    """Put messages of one id, in every way in which they are different ones; return their values."""
    ways: dict[str, dict[str, Any]] = {
        "alone": {},
        "ann's": {"group": "ann"},
        "bob's": {"group": "bob"},
        "of the group of its name": {"group": "line 1"},
        "ann's, urgent": {"group": "ann", "priority": 1},
        "alone, urgent": {"priority": 1},
    }
    for value, way in ways.items():
        for _ in range(2):  # the second time it is known
            client.put(value, task=task, id="line 1", **way)
    return sorted(ways)


BATCH = {"method": gathered_together, "batch": 4, "batch_wait": 0.1}


@pytest.mark.parametrize("first", [same, gathered, BATCH], ids=["result", "output", "batch"])
def test_each_message_of_one_id_has_its_result(first: Any, domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    task = first if isinstance(first, dict) else {"method": first}
    with piped(domain, pipe_broker, {**task, "name": "first", "priorities": 2}, seen.take) as client:
        values = put_shared(client)
        with client.start() as run:
            seen.wait(len(values))
            until(lambda: run.summary.done == 2 * len(values))
    assert sorted(seen.values) == values


def test_each_message_of_one_id_has_its_letter_and_is_redriven(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen, mended = Seen(), False

    def shaky(value: str) -> None:
        if not mended:
            raise Reject("not yet")
        seen.take(value)

    with piped(domain, pipe_broker, {"method": shaky, "priorities": 2}) as client:
        values = put_shared(client)
        with client.start():
            until(lambda: dead(client, "shaky") == len(values))
        assert sorted(letter.value for letter in client.dead_letters()) == values
        mended = True
        assert client.redrive() == len(values)
        with client.start():
            assert sorted(seen.wait(len(values))) == values


def test_messages_of_one_id_keep_apart_without_high_throughput(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def name(value: str) -> Iterator[Output]:
        for group in ("g", "h"):
            yield Output([value, group], id="line 1", group=f"{group} of {value}")

    tasks = ({"method": name, "priorities": 2}, seen.take)
    with piped(domain, pipe_broker, *tasks, high_throughput=False) as client:
        values = put_shared(client)
        with client.start():
            found = seen.wait(2 * len(values))
    assert sorted(map(tuple, found)) == sorted((value, group) for value in values for group in ("g", "h"))


def test_foreign_bodies_that_bring_an_id_are_messages_of_their_own(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()
    theirs = [{"id": "x", "n": n} for n in range(3)]
    ours = [{"sqspipes": 1, "id": "x", "value": {"n": n}} for n in range(3, 6)]
    with (
        opened(pipe_broker) as broker,
        piped(domain, pipe_broker if pipe_broker["broker"] != "memory://" else {"broker": broker},
              {"method": gathered, "name": "first", "priorities": 2}, seen.take) as client,
    ):  # fmt: skip
        client.create_queues()
        for level, queue in enumerate(client.get_task_by_name("first").queues):
            foreign(broker, queue, *theirs[level::2], *ours[level::2])
        with client.start():
            assert sorted(value["n"] for value in seen.wait(6)) == list(range(6))


def test_letter_that_another_tool_moved_back_dies_again(domain: str, pipe_broker: dict[str, Any]) -> None:
    with (
        opened(pipe_broker) as broker,
        piped(
            domain, pipe_broker if pipe_broker["broker"] != "memory://" else {"broker": broker}, refuse
        ) as client,
    ):
        client.put("a", id="line 1")
        for _ in range(2):
            with client.start() as run:
                until(lambda: run.summary.dead == 1 and dead(client, "refuse") == 1)
            assert move_letters(client, broker, "refuse") == 1


def test_outputs_of_a_rollback_are_others_than_those_of_its_call(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    class Undoing(Step):
        def consume(self, value: Any) -> Iterator[Any]:
            yield value
            raise Reject("half-way")

        def rollback(self, value: Any) -> None:
            self.produce(value)

    with piped(domain, pipe_broker, Undoing, seen.take) as client:
        client.put("a")
        with client.start():
            assert seen.wait(2) == ["a", "a"]


class Color(str, enum.Enum):  # noqa: UP042 - as many are
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 1


def test_member_of_an_enumeration_is_its_value_in_put_and_in_output(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def first(value: Any) -> Output:
        return Output(value, group=Color.RED, id=Size.LARGE, priority=Size.LARGE, task=Names.SECOND)

    def second(value: Any) -> None:
        message = current_message()
        seen.take([message.group, message.id, message.priority])

    tasks = (first, {"method": second, "priorities": 2})
    with piped(domain, pipe_broker, *tasks) as client, client.start():
        client.put(1)
        seen.wait(1)
        # The same message once more, which the queue knows; and another one.
        client.put(1, task=Names.SECOND, group=Color.RED, id=Size.LARGE, priority=Size.LARGE)
        client.put(1, task="second", group=Color.RED, id=2, priority=Size.LARGE)
        assert seen.wait(2) == [["red", "1", 1], ["red", "2", 1]]


class Names(str, enum.Enum):  # noqa: UP042 - as many are
    SECOND = "second"


# Over time, on brokers that go by a clock of the test's own

CLOCKED = ["memory", "sqlite", "redis"]


@pytest.fixture(params=CLOCKED)
def clock_and_broker(request: pytest.FixtureRequest, broker_arguments: BrokerArguments) -> Iterator[Any]:
    """A clock, and a broker that goes by it."""
    clock = Clock()
    with contextlib.closing(dying(broker_arguments(request.param)["broker"], clock)) as broker:
        yield clock, broker


def test_id_that_is_put_again_after_its_five_minutes_is_a_new_message(
    domain: str, clock_and_broker: Any
) -> None:
    (clock, broker), seen = clock_and_broker, Seen()

    def work(value: str) -> str:
        if value.startswith("bad"):
            raise Reject("no")
        return value

    with piped(domain, {"broker": broker, "lease": LEASE}, work, seen.take) as client:
        client.put("good 1", id="x")
        client.put("bad 1", id="y")
        clock.now += 200
        client.run(drain=True)
        clock.now += 150
        client.put("good 2", id="x")
        client.put("bad 2", id="y")
        client.run(drain=True)
        assert seen.values == ["good 1", "good 2"]
        assert sorted(letter.value for letter in client.dead_letters()) == ["bad 1", "bad 2"]


def test_output_with_an_id_that_is_given_again_after_six_minutes_is_a_new_message(
    domain: str, clock_and_broker: Any
) -> None:
    (clock, broker), seen, calls = clock_and_broker, Seen(), Seen()

    def first(value: str) -> Output:
        calls.take(value)
        return Output(len(calls.values), id="k", group="g")

    with piped(domain, {"broker": broker, "lease": LEASE}, first, same, seen.take) as client:
        client.put("a")
        broker.dies_for = client.tasks[0].queue(0)
        with pytest.raises(RunError):
            client.run("first", drain=True)
        clock.now += 360  # the call is repeated, and both outputs wait for the next task
        client.run("first", drain=True)
        client.run(drain=True)
    assert seen.values == [1, 2]


def test_message_that_runs_again_hands_on_once(domain: str, clock_and_broker: Any) -> None:
    (clock, broker), seen, calls = clock_and_broker, Seen(), Seen()

    def first(value: int) -> Iterator[dict[str, int]]:
        calls.take(value)
        pairs = [("a", value), ("b", 2)]
        yield dict(pairs if len(calls.values) == 1 else reversed(pairs))
        yield {"c": value}

    with piped(domain, {"broker": broker, "lease": LEASE}, first, seen.take) as client:
        client.put(1)
        broker.dies_for = client.tasks[0].queue(0)
        with pytest.raises(RunError):
            client.run("first", drain=True)
        clock.now += OVER
        client.run(drain=True)
    assert (len(calls.values), len(seen.values)) == (2, 2)


def test_redriven_message_repeats_what_it_handed_on_before_it_died(
    domain: str, clock_and_broker: Any
) -> None:
    (clock, broker), seen, calls = clock_and_broker, Seen(), Seen()

    def first(value: str) -> Iterator[str]:
        calls.take(value)
        yield f"{value} begun"
        if len(calls.values) < 4:
            raise Reject("half-way")
        yield f"{value} ended"

    with piped(domain, {"broker": broker, "lease": LEASE}, first, seen.take) as client:
        client.put("a", id="x")
        for _ in range(3):
            client.run(drain=True)
            clock.now += 30
            assert client.redrive() == 1
        client.run(drain=True)
    assert seen.values == ["a begun", "a ended"]


def test_outputs_of_a_redriven_message_are_messages_of_their_own(domain: str, clock_and_broker: Any) -> None:
    (clock, broker), seen, calls = clock_and_broker, Seen(), Seen()

    def first(value: str) -> list[str] | Iterator[str]:
        calls.take(value)
        if len(calls.values) == 1:
            raise Reject("no")
        return (part for part in ["one", "two"])

    def second(value: str) -> str:
        if value not in calls.values:
            calls.take(value)
            raise Reject("no")
        return value

    with piped(domain, {"broker": broker, "lease": LEASE}, first, second, seen.take) as client:
        client.put("a")
        for _ in range(3):
            client.run(drain=True)
            client.redrive()
            clock.now += 1
        client.run(drain=True)
        assert list(client.dead_letters()) == []
    assert sorted(seen.values) == ["one", "two"]
    assert clock.now < FORGOTTEN + 1_000_000_000.0
