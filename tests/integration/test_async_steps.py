"""Async steps: ``consume`` and hooks on the event loop, and no instance in two calls at a time."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from sqspipes import OptionError, SignatureError, Step, TaskClient, current_message
from tests.integration.support import PATIENCE, Seen, passed, piped, run_until, until, waiting

MEMORY = {"broker": "memory://"}


class Told(Step):
    """A step that tells its class what happens, in order; its hooks are async."""

    told: ClassVar[list[Any]]
    label = "told"
    retries = 1

    def __init_subclass__(cls) -> None:
        cls.told = []

    async def setup(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.tell("setup")

    async def teardown(self) -> None:
        await self.tell("teardown")

    async def before_consume(self) -> None:
        await self.tell("before")

    async def after_consume(self, instructions: Any) -> None:
        await self.tell(("after", instructions))

    async def rollback(self, instructions: Any) -> None:
        await self.tell(("rollback", instructions))

    async def tell(self, what: Any) -> None:
        """Tell, after a while in which others may go on."""
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        self.told.append(what)


def test_hooks_run_around_each_call_and_setup_and_teardown_once(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Work(Told):
        async def consume(self, instructions: int) -> int:
            await self.tell(("consume", instructions))
            return instructions + 1

    seen = Seen()
    with piped(domain, pipe_broker, Work, seen.take) as client:
        client.put_many([1, 2], group="g")
        with client.start():
            assert seen.wait(2) == [2, 3]
    calls = [each for number in (1, 2) for each in ("before", ("consume", number), ("after", number))]
    assert Work.told == ["setup", *calls, "teardown"]


def test_hooks_may_be_plain(domain: str) -> None:
    told: list[str] = []

    class Work(Step):
        retries = 0

        def setup(self) -> None:
            told.append("setup")

        def teardown(self) -> None:
            told.append("teardown")

        def before_consume(self) -> None:
            told.append("before")

        def after_consume(self, instructions: int) -> None:
            told.append("after")

        def rollback(self, instructions: int) -> None:
            told.append("rollback")

        async def consume(self, instructions: int) -> None:
            if instructions:
                raise ValueError("no")

    with piped(domain, MEMORY, Work) as client:
        client.put_many([0, 1], group="g")
        run_until(client, done=1, dead=1)
    assert told == ["setup", "before", "after", "before", "rollback", "teardown"]


def test_no_instance_is_in_two_calls_and_there_are_no_more_than_workers(domain: str) -> None:
    instances: list[Step] = []
    busy: set[int] = set()
    full = asyncio.Event()

    class Work(Step):
        workers = 3

        def setup(self) -> None:
            instances.append(self)

        async def consume(self, instructions: int) -> int:
            assert id(self) not in busy
            busy.add(id(self))
            self.produce([instructions, "produced"])
            if len(busy) == 3:
                full.set()
            await asyncio.wait_for(full.wait(), PATIENCE)
            await asyncio.sleep(0)
            busy.remove(id(self))
            return instructions

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put_many(range(30))
        with client.start() as run:
            values = seen.wait(60)
        assert run.summary.failed == 0
    assert len(instances) == 3
    assert [sorted(each for each in values if isinstance(each, int))] == [list(range(30))]
    assert sorted(each[0] for each in values if isinstance(each, list)) == list(range(30))


def test_calls_one_after_the_other_have_one_instance(domain: str) -> None:
    instances: list[Step] = []

    class Work(Step):
        workers = 50

        def setup(self) -> None:
            instances.append(self)

        async def consume(self, instructions: int) -> None: ...

    with piped(domain, MEMORY, Work) as client:
        client.put_many(range(20), group="g")
        run_until(client, done=20)
    assert len(instances) == 1


def test_what_is_produced_goes_on_as_it_was_then_and_what_is_returned_after_it(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Split(Step):
        async def consume(self, instructions: dict[str, Any]) -> dict[str, Any]:
            for part in ("a", "b"):
                instructions["part"] = part
                self.produce(instructions)
                await asyncio.sleep(0)
            instructions["part"] = "returned"
            return instructions

    seen = Seen()
    with piped(domain, pipe_broker, Split, seen.take) as client:
        client.put({"url": "x"}, group="g")
        with client.start():
            seen.wait(3)
    assert [value["part"] for value in seen.values] == ["a", "b", "returned"]


def test_what_a_failed_call_produced_is_not_sent(domain: str) -> None:
    calls: list[int] = []

    class Work(Step):
        async def consume(self, instructions: int) -> None:
            calls.append(instructions)
            self.produce(f"try {len(calls)}")
            if len(calls) == 1:
                raise ValueError("the first time")

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put(1)
        with client.start() as run:
            assert seen.wait(1) == ["try 2"]
        assert run.summary.failed == 1


def test_step_that_yields_hands_on_as_it_goes_and_is_over_after_its_last_value(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    go_on = threading.Event()

    class Many(Told):
        async def consume(self, instructions: int) -> AsyncIterator[Any]:
            self.produce("at the end")
            yield [instructions, current_message().id]
            await asyncio.to_thread(passed, go_on)
            yield "second"

    seen = Seen()
    with piped(domain, pipe_broker, Many, seen.take) as client:
        client.put(2, group="g", id="two")
        with client.start():
            assert seen.wait(1) == [[2, "two"]]
            assert Many.told == ["setup", "before"]
            go_on.set()
            assert seen.wait(3)[1:] == ["second", "at the end"]
    assert Many.told[2:] == [("after", 2), "teardown"]


def test_step_that_yields_is_closed_when_its_value_cannot_be_sent(domain: str) -> None:
    closed = threading.Event()

    class Many(Told):
        retries = 0

        async def consume(self, instructions: int) -> AsyncIterator[Any]:
            try:
                yield {1, 2}
            finally:
                closed.set()

    with piped(domain, MEMORY, Many, {"name": "next"}) as client:
        client.put(1)
        run_until(client, "told", dead=1)
    passed(closed)
    assert Many.told.count("teardown") == Many.told.count("setup")
    assert ("after", 1) not in Many.told


def test_rollback_runs_after_the_last_attempt_only_and_then_comes_the_dead_letter(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Work(Told):
        async def consume(self, instructions: Any) -> None:
            raise ValueError("no")

    with piped(domain, pipe_broker, Work) as client:
        client.put({"n": 1})
        run_until(client, dead=1)
        (letter,) = client.dead_letters("told")
    assert Work.told == ["setup", "before", "before", ("rollback", {"n": 1}), "teardown"]
    assert (letter.value, letter.error, letter.attempts) == ({"n": 1}, "no", 2)


def test_message_whose_rollback_produces_is_handled(
    domain: str, pipe_broker: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Work(Step):
        label = "work"
        retries = 0

        async def consume(self, instructions: int) -> None:
            self.produce("never")
            raise ValueError("no")

        async def rollback(self, instructions: int) -> None:
            await asyncio.sleep(0)
            self.produce(["saved", instructions, current_message().id])

    seen = Seen()
    with piped(domain, pipe_broker, Work, seen.take) as client:
        client.put(7, id="seven")
        with client.start() as run:
            assert seen.wait(1) == [["saved", 7, "seven"]]
        assert (run.summary.failed, run.summary.dead) == (0, 0)
    assert "failed and was rolled back: ValueError: no" in caplog.text


def test_letter_of_a_rollback_that_fails_has_both_errors(domain: str) -> None:
    class Work(Step):
        retries = 0

        async def consume(self, instructions: int) -> None:
            raise ValueError("first trouble")

        async def rollback(self, instructions: int) -> None:
            raise KeyError("second trouble")

    with piped(domain, MEMORY, Work) as client:
        client.put(7)
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert letter.error == "first trouble; its rollback failed: KeyError: 'second trouble'"


def test_failed_setup_is_a_failed_attempt_and_is_tried_again(domain: str) -> None:
    tries: list[int] = []

    class Work(Step):
        async def setup(self) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise OSError("not yet")

        async def consume(self, instructions: int) -> int:
            return instructions

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put_many([1, 2], group="g")
        with client.start() as run:
            assert seen.wait(2) == [1, 2]
    assert (len(tries), run.summary.failed) == (3, 2)


def test_teardown_has_the_time_of_the_stop_and_its_error_is_logged(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Work(Step):
        async def consume(self, instructions: int) -> None: ...

        async def teardown(self) -> None:
            await asyncio.sleep(0.5)
            raise OSError("cannot close")

    with piped(domain, MEMORY, Work) as client:
        client.put(1)
        assert run_until(client, done=1).done == 1
        assert "teardown of step Work failed" in caplog.text


def test_call_that_is_given_up_is_cancelled_and_its_instance_torn_down(domain: str) -> None:
    begun, torn_down = threading.Event(), threading.Event()

    class Work(Step):
        async def consume(self, instructions: int) -> None:
            begun.set()
            await asyncio.sleep(600)

        async def teardown(self) -> None:
            await asyncio.sleep(0)
            torn_down.set()

    with piped(domain, MEMORY, Work, stop_timeout=0.3) as client:
        client.put(1)
        with client.start() as run:
            passed(begun)
        passed(torn_down)
        assert run.summary.done == 0
        assert waiting(client, "Work") == 1 or client.status().levels[0].in_flight == 1


def test_missing_key_and_log_are_those_of_any_step(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    class Download(Step):
        async def consume(self, instructions: dict[str, Any]) -> None:
            self.log("got %d", len(instructions))
            instructions["url"]

    client = TaskClient(domain, broker="memory://").register_tasks([Download])
    said = "step Download: there is no key 'url': the keys are 'uri'"
    with caplog.at_level(logging.INFO), pytest.raises(KeyError, match=said):
        client.call({"uri": 1})
    assert (f"sqspipes.{domain}.Download", logging.INFO, "got 1") in caplog.record_tuples


def test_trial_calls_steps_on_one_loop_and_tears_them_down(domain: str) -> None:
    class Split(Told):
        label = "split"

        async def consume(self, instructions: str) -> AsyncIterator[str]:
            for word in instructions.split():
                yield word

    class Shout(Told):
        label = "shout"

        async def consume(self, instructions: str) -> str:
            await self.tell(instructions)
            return instructions.upper()

    client = TaskClient(domain, broker="memory://").register_tasks([Split, Shout])
    assert client.call("a b") == ["A", "B"]
    assert client.call("c") == ["C"]
    assert (Split.told.count("setup"), Split.told.count("teardown")) == (2, 2)
    assert Shout.told[:7] == ["setup", "before", "a", ("after", "a"), "before", "b", ("after", "b")]


def test_runs_at_the_same_time_share_no_instance(domain: str) -> None:
    class Work(Told):
        async def consume(self, instructions: int) -> int:
            await self.tell(instructions)  # which fails on another loop than that of setup
            return instructions

    seen = Seen()
    with piped(domain, MEMORY, {"method": Work, "workers": 2}, seen.take) as client:
        with client.start("told") as first, client.start() as second:
            client.put_many(range(50))
            assert sorted(seen.wait(50)) == list(range(50))
            until(lambda: first.summary.done + second.summary.done == 100)
        assert first.summary.failed + second.summary.failed == 0


class Doubled(Step):
    """A step that other processes can import."""

    async def consume(self, instructions: int) -> int:
        """Return twice the value."""
        return 2 * instructions


def test_step_travels_to_another_process_and_is_one_there(domain: str) -> None:
    task = TaskClient(domain, broker="memory://").register_tasks([Doubled]).tasks[0]
    there = TaskClient(domain, broker="memory://").register_tasks([pickle.loads(pickle.dumps(task.method))])
    assert there.call(4) == [8]


def test_plain_step_with_an_async_hook_is_refused(domain: str) -> None:
    class Work(Step):
        async def setup(self) -> None: ...

        def consume(self, instructions: int) -> None: ...

    said = "step Work: setup is async def and consume is not: allowed is def"
    with pytest.raises(OptionError, match=said):
        TaskClient(domain, broker="memory://").register_tasks([Work])


def test_async_step_takes_no_batch(domain: str) -> None:
    class Work(Step):
        batch = 10

        async def consume(self, instructions: list[int]) -> None: ...

    client = TaskClient(domain, broker="memory://").register_tasks([Work])
    with pytest.raises(
        SignatureError, match=r"task 'Work' is async and has a batch: allowed is def f\(values\)"
    ):
        client.run()
