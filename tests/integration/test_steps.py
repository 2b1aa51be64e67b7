"""Steps: tasks as classes, their hooks, what they produce, and one instance per worker thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from sqspipes import MissingKeyError, OptionError, Output, Step, TaskClient
from tests.integration.support import Seen, piped, run_until

MEMORY = {"broker": "memory://"}


class Told(Step):
    """A step that tells its class what happens, in order."""

    told: ClassVar[list[Any]]
    label = "told"
    retries = 1

    def __init_subclass__(cls) -> None:
        cls.told = []

    def setup(self) -> None:
        self.told.append(("setup", threading.get_ident()))

    def teardown(self) -> None:
        self.told.append(("teardown", threading.get_ident()))

    def before_consume(self) -> None:
        self.told.append("before")

    def after_consume(self, instructions: Any) -> None:
        self.told.append(("after", instructions))

    def rollback(self, instructions: Any) -> None:
        self.told.append(("rollback", instructions))


def test_hooks_run_around_each_call_and_setup_and_teardown_once_in_its_thread(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Work(Told):
        def consume(self, instructions: int) -> int:
            self.told.append(("consume", instructions))
            return instructions + 1

    seen = Seen()
    with piped(domain, pipe_broker, Work, seen.take) as client:
        client.put_many([1, 2], group="g")
        with client.start():
            assert seen.wait(2) == [2, 3]
    (first, thread), *middle, (last, other) = Work.told
    assert (first, last) == ("setup", "teardown")
    assert thread == other != threading.get_ident()
    assert middle == ["before", ("consume", 1), ("after", 1), "before", ("consume", 2), ("after", 2)]


def test_each_worker_thread_has_an_instance_of_its_own(domain: str) -> None:
    together = threading.Barrier(3)
    instances: set[int] = set()
    kept: list[Step] = []  # so that no two have one address

    class Work(Step):
        workers = 3

        def consume(self, instructions: int) -> None:
            together.wait(10)
            kept.append(self)
            instances.add(id(self))

    with piped(domain, MEMORY, Work) as client:
        assert client.tasks[0].workers == 3
        client.put_many(range(3))
        run_until(client, done=3)
    assert len(instances) == 3


def test_what_is_produced_goes_on_as_it_was_then_and_what_is_returned_after_it(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Split(Step):
        def consume(self, instructions: dict[str, Any]) -> dict[str, Any]:
            for part in ("a", "b"):
                instructions["part"] = part
                self.produce(instructions)
            instructions["part"] = "returned"
            return instructions

    seen = Seen()
    with piped(domain, pipe_broker, Split, seen.take) as client:
        client.put({"url": "x"}, group="g")
        with client.start():
            seen.wait(3)
    assert [value["part"] for value in seen.values] == ["a", "b", "returned"]
    assert seen.values[0] == {"url": "x", "part": "a"}


def test_what_a_failed_call_produced_is_not_sent(domain: str, pipe_broker: dict[str, Any]) -> None:
    calls: list[int] = []

    class Work(Step):
        def consume(self, instructions: int) -> None:
            calls.append(instructions)
            self.produce(f"try {len(calls)}")
            if len(calls) == 1:
                raise ValueError("the first time")

    seen = Seen()
    with piped(domain, pipe_broker, Work, seen.take) as client:
        client.put(1)
        with client.start() as run:
            seen.wait(1)
        assert run.summary.failed == 1
    assert seen.values == ["try 2"]


def test_step_that_yields_is_over_after_its_last_value(domain: str) -> None:
    class Many(Told):
        def consume(self, instructions: int) -> Iterator[int]:
            self.produce("at the end")
            for number in range(instructions):
                self.told.append(number)
                yield number

    seen = Seen()
    with piped(domain, MEMORY, Many, seen.take) as client:
        client.put(2, group="g")
        with client.start():
            assert seen.wait(3) == [0, 1, "at the end"]
    assert Many.told[1:-1] == ["before", 0, 1, ("after", 2)]


def test_rollback_runs_after_the_last_attempt_only_and_then_comes_the_dead_letter(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    class Work(Told):
        def consume(self, instructions: Any) -> None:
            raise ValueError("no")

    with piped(domain, pipe_broker, Work) as client:
        client.put({"n": 1})
        run_until(client, dead=1)
        (letter,) = client.dead_letters("told")
    assert [each for each in Work.told if isinstance(each, str)] == ["before", "before"]
    assert [each for each in Work.told if each[0] == "rollback"] == [("rollback", {"n": 1})]
    assert not any(each[0] == "after" for each in Work.told)
    assert (letter.value, letter.error, letter.attempts) == ({"n": 1}, "no", 2)


def test_message_whose_rollback_produces_is_handled(
    domain: str, pipe_broker: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Work(Step):
        label = "work"
        retries = 0

        def consume(self, instructions: int) -> None:
            self.produce("never")
            raise ValueError("no")

        def rollback(self, instructions: int) -> None:
            self.produce(["saved", instructions])

    seen = Seen()
    with piped(domain, pipe_broker, Work, seen.take) as client:
        client.put(7)
        with client.start() as run:
            assert seen.wait(1) == [["saved", 7]]
        assert (run.summary.failed, run.summary.dead) == (0, 0)
        assert list(client.dead_letters("work")) == []
    assert "failed and was rolled back: ValueError: no" in caplog.text


def test_letter_of_a_rollback_that_fails_has_both_errors(domain: str) -> None:
    class Work(Step):
        label = "work"
        retries = 0

        def consume(self, instructions: int) -> None:
            raise ValueError("first trouble")

        def rollback(self, instructions: int) -> None:
            raise KeyError("second trouble")

    with piped(domain, MEMORY, Work) as client:
        client.put(7)
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert letter.error_type == "ValueError"
    assert letter.error == "first trouble; its rollback failed: KeyError: 'second trouble'"
    assert "first trouble" in letter.traceback
    assert "second trouble" in letter.traceback


def test_missing_key_is_told_with_the_step_and_the_keys_that_are_there(domain: str) -> None:
    class Download(Step):
        retries = 0

        def consume(self, instructions: dict[str, Any]) -> None:
            instructions["url"]

    with piped(domain, MEMORY, Download) as client:
        client.put({"uri": 1, "name": 2})
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert letter.error_type == "MissingKeyError"
    assert letter.error == "step Download: there is no key 'url': the keys are 'uri', 'name'"


def test_missing_key_is_a_key_error_too(domain: str) -> None:
    class Download(Step):
        def consume(self, instructions: dict[str, Any]) -> Any:
            with pytest.raises(MissingKeyError) as caught:
                instructions["url"]
            return [isinstance(caught.value, KeyError), caught.value.key, instructions.get("url")]

    client = TaskClient(domain, broker="memory://").register_tasks([Download])
    assert client.call({}) == [[True, "url", None]]


def test_log_is_named_by_domain_and_label(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    class Work(Step):
        def consume(self, instructions: int) -> None:
            self.log("got %d of %s", instructions, "them")
            self.log.warning("careful")

    client = TaskClient(domain, broker="memory://").register_tasks([Work])
    with caplog.at_level(logging.INFO, f"sqspipes.{domain}.Work"):
        client.call(5)
    assert caplog.record_tuples == [
        (f"sqspipes.{domain}.Work", logging.INFO, "got 5 of them"),
        (f"sqspipes.{domain}.Work", logging.WARNING, "careful"),
    ]


def test_failed_setup_is_a_failed_attempt_and_is_tried_again(domain: str) -> None:
    tries: list[int] = []

    class Work(Step):
        def setup(self) -> None:
            tries.append(1)
            if len(tries) < 3:
                raise OSError("not yet")

        def consume(self, instructions: int) -> int:
            return instructions

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put_many([1, 2], group="g")
        with client.start() as run:
            assert seen.wait(2) == [1, 2]
    assert (len(tries), run.summary.failed) == (3, 2)


def test_teardown_that_fails_is_logged_and_changes_nothing(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Work(Step):
        def consume(self, instructions: int) -> None: ...

        def teardown(self) -> None:
            raise OSError("cannot close")

    with piped(domain, MEMORY, Work) as client:
        client.put(1)
        assert run_until(client, done=1).done == 1
    assert "teardown of step Work failed" in caplog.text


def test_step_and_function_mix_and_a_dict_overrides_the_class(domain: str) -> None:
    class Work(Step):
        workers = 2
        priorities = 3

        def consume(self, instructions: int, plus: int) -> Any:
            return Output(instructions + plus, priority=9)

    def double(value: int) -> int:
        return 2 * value

    work = {"method": Work, "name": "work", "workers": 5, "args": (3,)}
    client = TaskClient(domain, broker="memory://").register_tasks([double, work])
    task = client.tasks[1]
    assert (task.name, task.workers, task.priorities) == ("work", 5, 3)
    assert client.call(2) == [7]


def test_signature_of_consume_is_checked_before_the_run(domain: str) -> None:
    class Work(Step):
        def consume(self) -> None: ...

    def first(value: int) -> int:
        return value

    client = TaskClient(domain, broker="memory://").register_tasks([first, Work])
    with pytest.raises(OptionError, match=r"task 'Work': Work\(\).* cannot take \(value\)"):
        client.run()


def test_wrong_attribute_of_a_step_is_named(domain: str) -> None:
    class Work(Step):
        workers = "many"

        def consume(self, instructions: int) -> None: ...

    with pytest.raises(OptionError, match="task 'Work': workers is 'many': allowed is a whole number"):
        TaskClient(domain, broker="memory://").register_tasks([Work])
