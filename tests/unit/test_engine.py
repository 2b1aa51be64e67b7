"""The engine in the states in which it could go wrong: each test makes one of them, by events and not by luck."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sqspipes import RunError, TaskCallback, TaskClient
from sqspipes.brokers.base import Answer, Broker, Entry, Kind
from sqspipes.errors import QueueMissingError
from sqspipes.messages.message import Delivery
from tests import inside
from tests.integration.support import PATIENCE, Seen, passed, until
from tests.unit.passing import Passing

DOMAIN = "engine"


@pytest.fixture
def broker() -> Iterator[Passing]:
    with contextlib.closing(Passing()) as broker:
        yield broker


def piped(broker: Broker, *tasks: Any, **options: Any) -> TaskClient:
    return TaskClient(DOMAIN, broker=broker, **{"backoff": 0, **options}).register_tasks(list(tasks))


def put_raw(broker: Broker, task: str, *bodies: str, group: str = "group") -> None:
    """Send bodies as a stranger would."""
    answers = broker.send(
        f"{DOMAIN}--{task}.fifo", [Entry(body, group, f"raw-{next(_numbers)}") for body in bodies]
    )
    assert all(answer.kind is Kind.OK for answer in answers)


_numbers = itertools.count()


def redelivered(broker: Broker, queue: str, times: int) -> None:
    """Receive what is in a queue and give it back, so that it has been received so often."""
    for _ in range(times):
        found = broker.receive(queue, count=10, wait=0.0, lease=60.0, attempt=f"a{next(_numbers)}")
        assert found
        broker.extend(queue, [(one.receipt, 0.0) for one in found])


def left(broker: Broker, task: str) -> tuple[int, int]:
    depth = broker.depth(f"{DOMAIN}--{task}.fifo")
    return depth.waiting, depth.in_flight


def letters(client: TaskClient) -> list[str]:
    return [letter.error_type for letter in client.dead_letters()]


# Lanes that must go on


def test_lane_goes_on_after_a_body_that_cannot_be_read(broker: Passing) -> None:
    seen = Seen()
    client = piped(broker, {"method": seen.take, "name": "take"})
    client.create_queues()
    put_raw(broker, "take", "not json", "also {not", '"good"', "}", '"better"')
    with client.start():
        assert seen.wait(2) == ["good", "better"]
    assert letters(client) == ["DecodingError"] * 3
    assert left(broker, "take") == (0, 0)


def test_message_that_fails_without_a_pause_is_called_again_and_again(broker: Passing) -> None:
    tries: list[int] = []

    def fail(value: int) -> None:
        tries.append(value)
        raise ValueError

    client = piped(broker, {"method": fail, "retries": 40, "workers": 4})
    client.put_many(range(20))
    summary = client.run(drain=True)
    assert (summary.failed, summary.dead) == (20 * 41, 20)
    assert len(tries) == 20 * 41
    assert left(broker, "fail") == (0, 0)


def test_every_try_gets_the_value_as_it_was_put(broker: Passing) -> None:
    seen = Seen()

    def fail(value: dict[str, Any]) -> None:
        seen.take(dict(value))
        value["made"] = object()
        raise ValueError

    client = piped(broker, {"method": fail, "retries": 2})
    client.put({"a": 1})
    assert client.run(drain=True).dead == 1
    assert seen.values == [{"a": 1}] * 3
    assert [letter.value for letter in client.dead_letters()] == [{"a": 1}]


@pytest.mark.parametrize("body", ["1e999", '{"a": [1e999]}', "[" * 900 + "]" * 900])
def test_value_that_can_be_read_and_not_written_poisons_nothing(broker: Passing, body: str) -> None:
    def fail(value: Any) -> None:
        raise ValueError

    client = piped(broker, {"method": fail, "retries": 0})
    client.create_queues()
    put_raw(broker, "fail", body)
    assert client.run(drain=True).dead == 1
    assert letters(client) == ["ValueError"]


# Suspects


def test_suspect_behind_a_higher_level_does_not_stop_the_process(broker: Passing) -> None:
    seen, begun, go_on = Seen(), threading.Event(), threading.Event()

    def take(value: str) -> None:
        if value == "first":
            begun.set()
            passed(go_on)
        seen.take(value)

    client = piped(broker, {"method": take, "priorities": 2, "workers": 2})
    client.create_queues()
    client.put("suspect")
    redelivered(broker, f"{DOMAIN}--take.fifo", 5)
    client.put("first", priority=1)

    def suspect_comes(_: Sequence[Any]) -> None:
        # When the first one runs, and the higher level is asked again.
        passed(begun)
        until(lambda: [queue for queue, _ in broker.receives].count(f"{DOMAIN}--take--p1.fifo") >= 2)

    broker.before["receive", "take"] = suspect_comes
    broker.receives.clear()
    with client.start() as run:
        until(lambda: inside.is_shut(run))  # the suspect has been refused
        client.put("high", priority=1)
        until(lambda: broker.depth(f"{DOMAIN}--take--p1.fifo").in_flight == 2)
        go_on.set()
        assert sorted(seen.wait(3)) == ["first", "high", "suspect"]
    assert run.summary.done == 3


def test_suspect_in_company_is_given_back_with_it_and_comes_again_alone(broker: Passing) -> None:
    seen, ready, queue = Seen(), threading.Event(), f"{DOMAIN}--take.fifo"
    client = piped(broker, {"method": seen.take, "name": "take", "workers": 4})
    client.put("first")
    broker.before["receive", "take"] = lambda _: len(broker.receives) > 1 and passed(ready)
    with client.start():
        seen.wait(1)
        client.put_many(["killer", "mate", "other mate"], group="g")
        redelivered(broker._inner, queue, 5)
        ready.set()
        assert seen.wait(4) == ["first", "killer", "mate", "other mate"]
    assert broker.released[:3] == [(queue, 0.0)] * 3
    counts = [count for _, count in broker.receives]
    assert counts[0] == 1 and counts[1] > 3 and counts[2:5] == [1, 1, 1]


def test_suspect_that_waits_for_a_slot_keeps_no_higher_level_out() -> None:
    seen, begun, go_on = Seen(), threading.Event(), threading.Event()
    broker = Passing(longest_wait=0.05)  # the poll that is open ends soon, and there has to be another one

    def take(value: str) -> None:
        if value == "long":
            begun.set()
            passed(go_on)
        seen.take(value)

    client = piped(broker, {"method": take, "priorities": 2})
    client.create_queues()
    client.put("suspect")
    redelivered(broker, f"{DOMAIN}--take.fifo", 5)
    client.put("long", priority=1)
    with client.start():
        passed(begun)
        until(lambda: broker.depth(f"{DOMAIN}--take.fifo").in_flight == 1)
        polls = len(broker.receives)
        until(lambda: len(broker.receives) >= polls + 3)
        client.put("high", priority=1)
        until(lambda: broker.depth(f"{DOMAIN}--take--p1.fifo").in_flight == 2)
        go_on.set()
        assert sorted(seen.wait(3)) == ["high", "long", "suspect"]
    broker.close()


def test_suspect_that_waits_for_a_slot_keeps_no_other_task_back(
    broker: Passing, caplog: pytest.LogCaptureFixture
) -> None:
    seen, begun, go_on, ready = Seen(), threading.Event(), threading.Event(), threading.Event()

    def slow(value: str) -> None:
        if value == "long":
            begun.set()
            passed(go_on)

    client = piped(broker, slow, {"method": seen.take, "name": "quick", "workers": 2})
    client.put("long", task="slow")
    broker.before["receive", "slow"] = lambda _: begun.is_set() and passed(ready)  # type: ignore[func-returns-value]
    with client.start() as run:
        passed(begun)
        client.put("suspect", task="slow")
        redelivered(broker._inner, f"{DOMAIN}--slow.fifo", 5)
        ready.set()
        until(lambda: broker.depth(f"{DOMAIN}--slow.fifo").in_flight == 2)
        for number in range(20):
            client.put(number, task="quick")
            seen.wait(number + 1)
            assert not inside.is_shut(run)
        go_on.set()
    assert "it waited" not in caplog.text


def test_nothing_is_received_beside_a_suspect(broker: Passing) -> None:
    asked: list[int] = []

    def take(value: str) -> None:
        if value == "suspect":
            asked.append(len(broker.receives))
            threading.Event().wait(0.1)  # for whoever would ask
            asked.append(len(broker.receives))

    client = piped(broker, {"method": take, "workers": 4})
    client.create_queues()
    client.put("suspect")
    redelivered(broker, f"{DOMAIN}--take.fifo", 5)
    client.put_many(range(5))
    broker.receives.clear()
    assert client.run(drain=True).done == 6
    assert asked == [1, 1]


def test_suspects_of_two_tasks_take_turns_and_nobody_is_beside_them(broker: Passing) -> None:
    inside, beside, seen = [0], [], Seen()
    lock = threading.Lock()

    def take(value: str) -> None:
        with lock:
            inside[0] += 1
            if "suspect" in value and inside[0] > 1:
                beside.append(value)
        threading.Event().wait(0.002)
        with lock:
            inside[0] -= 1
        seen.take(value)

    def one(value: str) -> None:
        take(value)

    def two(value: str) -> None:
        take(value)

    client = piped(broker, {"method": one, "workers": 3}, {"method": two, "workers": 3})
    client.create_queues()
    for name in ("one", "two"):
        client.put_many([f"suspect {n}" for n in range(3)], task=name)
        redelivered(broker, f"{DOMAIN}--{name}.fifo", 4)
        client.put_many([f"innocent {n}" for n in range(20)], task=name)
    with client.start():
        seen.wait(46)
    assert not beside


# Levels


def test_lower_level_does_not_wait_for_the_poll_of_a_higher_one(broker: Passing) -> None:
    seen = Seen()
    client = piped(broker, {"method": seen.take, "name": "take", "priorities": 2})
    client.put("high", priority=1)
    with client.start():
        seen.wait(1)
        began = time.monotonic()
        for number in range(5):
            client.put(number)
            seen.wait(number + 2)
        assert time.monotonic() - began < PATIENCE / 2


def test_lower_level_ends_the_probing_too(broker: Passing) -> None:
    seen = Seen()

    def take(value: int) -> None:
        seen.take(value)
        if value < 30:
            raise ValueError

    broker.limits = replace(broker.limits, longest_wait=0.05)
    client = piped(broker, {"method": take, "priorities": 3, "retries": 0, "workers": 2})
    client.put_many(range(40))
    with client.start():
        assert sorted(seen.wait(40)) == list(range(40))


# The end of a run


def test_drain_waits_for_what_a_source_has_handed_on(broker: Passing) -> None:
    seen = Seen()
    values: Iterator[int | None] = iter([*range(3), None])
    slow = threading.Event()

    def feed() -> int | None:
        return next(values)

    def send(entries: Sequence[Any]) -> None:
        slow.wait(0.3)  # longer than a look at empty queues

    client = piped(broker, feed, {"method": seen.take, "name": "take"})
    broker.before["send", "take"] = send
    client.run(drain=True)
    assert seen.values == [0, 1, 2]


def test_error_while_draining_ends_all_threads(broker: Passing) -> None:
    seen = Seen()
    client = piped(broker, {"method": seen.take, "name": "take"})
    client.create_queues()

    def depth(_: Sequence[Any]) -> None:
        raise QueueMissingError("gone")

    broker.before["depth", "take"] = depth
    with pytest.raises(RunError):
        client.run(drain=True)
    client.put(1)
    until(lambda: not engine_threads())
    assert not seen.values


def engine_threads() -> list[str]:
    """Name the threads of runs that are alive; those that ask the broker end by themselves when idle."""
    names = (thread.name for thread in threading.enumerate())
    return [
        name
        for name in names
        if name.startswith(
            (
                *("sqspipes run", "sqspipes crew", "sqspipes exchange", "sqspipes worker"),
                *("sqspipes source", "sqspipes control"),
            )
        )
    ]


@pytest.mark.parametrize("queue", ["after", "take--dead"])
def test_run_whose_next_queue_is_gone_ends_at_once_with_an_error(broker: Passing, queue: str) -> None:
    def take(value: int) -> int:
        if queue == "take--dead":
            raise ValueError
        return value

    def send(_: Sequence[Any]) -> None:
        raise QueueMissingError(queue)

    client = piped(
        broker, {"method": take, "workers": 4, "retries": 0}, {"name": "after"}, stop_timeout=2 * PATIENCE
    )
    client.put_many(range(100))
    broker.before["send", queue] = send
    began = time.monotonic()
    with pytest.raises(RunError, match="QueueMissingError"):
        client.run()
    assert time.monotonic() - began < PATIENCE
    until(lambda: not engine_threads())
    waiting, in_flight = left(broker, "take")
    assert waiting + in_flight > 0
    assert in_flight == 0


def test_iteration_over_a_generator_source_ends_when_the_reader_leaves(broker: Passing) -> None:
    def feed() -> Iterator[int]:
        yield from itertools.count()

    client = piped(broker, feed, stop_timeout=2 * PATIENCE)
    began = time.monotonic()
    with client.run(iterate=True) as results:
        assert [next(results), next(results)] == [0, 1]
    assert time.monotonic() - began < PATIENCE
    until(lambda: not engine_threads())


def test_callback_of_an_unread_result_does_not_hold_up_the_stop(broker: Passing) -> None:
    called: list[int] = []

    def take(value: int) -> TaskCallback:
        return TaskCallback(value, called.append, [value])

    client = piped(broker, {"method": take, "workers": 3}, stop_timeout=2 * PATIENCE)
    client.put_many(range(10), group="one")
    began = time.monotonic()
    with client.run(iterate=True) as results:
        assert next(results) == 0
    assert time.monotonic() - began < PATIENCE
    assert called in ([], [0])
    assert left(broker, "take")[1] == 0


def test_reader_that_comes_back_after_the_end_finds_the_end(broker: Passing) -> None:
    client = piped(broker, {"method": lambda value: value, "name": "take"})
    client.put(1)
    results = client.run(iterate=True)
    assert next(results) == 1
    client.stop()
    results._run.join(PATIENCE)
    assert list(results) == []


def test_stop_gives_back_all_that_was_not_started(broker: Passing) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def take(value: int) -> None:
        begun.set()
        passed(go_on)

    client = piped(broker, {"method": take, "workers": 2})
    client.put_many(range(30), group=lambda value: str(value % 7))
    run = client.start()
    passed(begun)
    run.stop()
    until(lambda: len(broker.released) > 0)
    go_on.set()
    summary = run.wait(PATIENCE)
    assert left(broker, "take") == (30 - summary.done, 0)


def test_stop_cuts_no_poll_before_all_is_settled() -> None:
    begun, go_on = threading.Event(), threading.Event()
    interrupts: list[int] = []

    def one(value: int) -> int:
        begun.set()
        passed(go_on)
        return value

    def two(value: int) -> None:
        """The end."""

    with contextlib.closing(Passing(clean_interrupt=False)) as broker:
        client = piped(broker, one, two, linger=10.0)
        for key in (("send", "two"), ("ack", "one"), ("extend", "one"), ("extend", "two")):
            broker.before[key] = lambda _: interrupts.append(broker.interrupts)  # type: ignore[func-returns-value]
        client.put_many(range(3))
        began = time.monotonic()
        run = client.start()
        passed(begun)
        run.stop()
        until(lambda: len(broker.released) > 0)
        threading.Event().wait(0.3)  # what is cut too soon is cut by now
        go_on.set()
        run.wait(PATIENCE)
        assert time.monotonic() - began < 10.0  # neither the linger nor a poll is waited for
        assert len(interrupts) >= 3
        assert not any(interrupts)


def test_stop_in_a_backoff_gives_the_message_back(broker: Passing) -> None:
    seen = Seen()

    def fail(value: int) -> None:
        seen.take(value)
        raise ValueError

    client = piped(broker, {"method": fail, "backoff": 3600})
    client.put_many([1, 2, 3], group="one")
    with client.start():
        seen.wait(1)
    assert left(broker, "fail") == (3, 0)
    assert seen.values == [1]


# Leases


def test_lease_that_is_lost_in_a_call_is_found_again_and_no_second_call(broker: Passing) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), Seen()

    def take(value: int) -> None:
        seen.take(value)
        begun.set()
        passed(go_on)

    client = piped(broker, {"method": take, "lease": 5})
    client.put(1)
    receipts: list[str] = []
    inner = broker._inner.receive

    def receive(*args: Any, **options: Any) -> list[Delivery]:
        found = inner(*args, **options)
        receipts.extend(one.receipt for one in found)
        return found

    broker._inner.receive = receive  # type: ignore[method-assign]
    with client.start() as run:
        passed(begun)
        broker._inner.extend(f"{DOMAIN}--take.fifo", [(receipts[0], 0.0)])  # as if the lease had ended
        until(lambda: len(receipts) == 2)
        go_on.set()
        until(lambda: left(broker, "take") == (0, 0))
    assert seen.values == [1]
    assert run.summary.done == 1


def test_lease_is_extended_for_as_long_as_a_call_runs(broker: Passing) -> None:
    begun, go_on, extended = threading.Event(), threading.Event(), threading.Semaphore(0)

    def take(value: int) -> None:
        begun.set()
        passed(go_on)

    def extend(leases: Sequence[tuple[str, float]]) -> None:
        assert [seconds for _, seconds in leases] == [1.0]
        extended.release()

    client = piped(broker, take)
    shorter = replace(client.tasks[0], lease=1.0)  # than users may have it
    client._pipe = replace(client._pipe, tasks=(shorter,))
    client.put(1)
    broker.before["extend", "take"] = extend
    with client.start() as run:
        passed(begun)
        for _ in range(3):
            assert extended.acquire(timeout=0.9)  # each comes half a lease after the last
        go_on.set()
        until(lambda: left(broker, "take") == (0, 0))
    assert run.summary.done == 1


def test_acknowledgement_that_comes_too_late_is_made_up_for(broker: Passing) -> None:
    seen = Seen()
    client = piped(broker, {"method": seen.take, "name": "take"})
    client.put(1)
    acks = [0]

    def ack(receipts: Sequence[Any]) -> list[Answer] | None:
        acks[0] += 1
        if acks[0] > 1:
            return None
        broker._inner.extend(f"{DOMAIN}--take.fifo", [(receipt, 0.0) for receipt in receipts])
        return [Answer(Kind.GONE)] * len(receipts)

    broker.before["ack", "take"] = ack
    with client.start():
        until(lambda: left(broker, "take") == (0, 0))
    assert seen.values == [1]


def test_newer_format_is_not_overtaken_by_its_group(broker: Passing) -> None:
    seen = Seen()
    client = piped(broker, {"method": seen.take, "name": "take"})
    client.put(0)
    with client.start():
        seen.wait(1)  # the queue is known now, and more than one message is asked for
        newer = json.dumps({"sqspipes": 99, "id": "x"})
        put_raw(broker, "take", newer, '"behind"', group="one")
        put_raw(broker, "take", '"other"', group="other")
        seen.wait(2)
    assert seen.values == [0, "other"]
    assert letters(client) == []


def test_dead_letter_that_is_refused_is_not_tried_without_end(broker: Passing) -> None:
    def fail(value: int) -> None:
        raise ValueError

    refusals = [0]
    refused = threading.Event()

    def send(entries: Sequence[Any]) -> list[Answer]:
        refusals[0] += 1
        refused.set()
        return [Answer(Kind.NEVER, "too large")] * len(entries)

    client = piped(broker, {"method": fail, "retries": 0})
    client.put(1)
    broker.before["send", "fail--dead"] = send
    with client.start():
        passed(refused)
    assert refusals[0] == 1
    assert sum(left(broker, "fail")) == 1
