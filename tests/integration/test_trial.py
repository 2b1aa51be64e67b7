"""``call``: a whole pipe in this thread without a broker; and the plugin that gives a client a broker of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

from sqspipes import (
    EncodingError,
    HopLimitError,
    OptionError,
    Output,
    Step,
    TaskClient,
    current_message,
)

#: Whether the package is installed, as in tox, and not only on the path: then pytest has found the plugin itself.
INSTALLED = any(each.value == "sqspipes.testing.plugin" for each in entry_points(group="pytest11"))

pytest_plugins = ["pytester"] if INSTALLED else ["pytester", "sqspipes.testing.plugin"]


def client_of(*tasks: Any, **options: Any) -> TaskClient:
    """Return a client of a broker that cannot be reached."""
    return TaskClient("app", broker="sqs://", endpoint_url="http://127.0.0.1:9", **options).register_tasks(
        list(tasks)
    )


def test_value_goes_through_all_tasks_in_this_thread() -> None:
    threads: set[int] = set()

    def split(value: str) -> Iterator[str]:
        threads.add(threading.get_ident())
        yield from value.split()

    def shout(value: str) -> tuple[str, str]:
        threads.add(threading.get_ident())
        return value, value.upper()

    assert client_of(split, shout).call("a b") == [("a", "A"), ("b", "B")]
    assert threads == {threading.get_ident()}


def test_every_hand_off_is_written_and_read() -> None:
    def pair(value: int) -> tuple[int, int]:
        return value, value

    def kind(value: Any) -> str:
        return type(value).__name__

    assert client_of(pair, kind).call(1) == ["list"]
    assert client_of(pair).call(1) == [(1, 1)]
    assert client_of(pair, output="pairs").call(1) == [[1, 1]]


def test_what_is_no_json_is_an_error_as_in_a_run() -> None:
    def work(value: int) -> Any:
        return {"a": {1, 2}}

    with pytest.raises(EncodingError, match=r"result of work is not JSON: \$\.a is a set"):
        client_of(work, {"name": "next"}).call(1)


def test_error_of_a_task_is_raised_at_its_first_attempt() -> None:
    calls: list[int] = []

    def work(value: int) -> None:
        calls.append(value)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        client_of(work).call(1)
    assert calls == [1]


def test_value_may_begin_at_any_task_and_outputs_go_where_they_say() -> None:
    def first(value: int) -> Any:
        return Output(value, task="third")

    def second(value: int) -> int:
        return 100 * value

    def third(value: int) -> int:
        return value + 1

    client = client_of(first, second, third)
    assert client.call(1) == [2]
    assert client.call(1, task="second") == [101]
    assert client.call(1, task=-1) == [2]


def test_loop_without_an_end_is_found() -> None:
    def again(value: int) -> Any:
        return Output(value, task="again")

    with pytest.raises(HopLimitError, match="result of again: sent back to again for the 1,001th time"):
        client_of(again).call(1)


def test_source_takes_no_value_and_the_first_task_that_does_gets_it() -> None:
    def source() -> None: ...

    def work(value: int) -> int:
        return value

    assert client_of(source, work).call(3) == [3]
    with pytest.raises(OptionError, match="task 'source' is a source"):
        client_of(source, work).call(3, task="source")


def test_steps_are_set_up_and_torn_down_and_know_their_message() -> None:
    told: list[Any] = []

    class Work(Step):
        def setup(self) -> None:
            told.append("setup")

        def consume(self, instructions: int) -> int:
            told.append(current_message().attempt)
            return instructions

        def teardown(self) -> None:
            told.append("teardown")

    client = client_of(Work)
    assert client.call(1) == [1]
    assert client.call(2) == [2]
    assert told == ["setup", 1, "teardown"] * 2


# The plugin


def test_copy_has_tasks_and_options_and_a_broker_of_its_own(
    sqspipes_client: Callable[[TaskClient], TaskClient],
) -> None:
    def work(value: int) -> int:
        return value

    original = client_of(work, lease=30.0)
    one, other = sqspipes_client(original), sqspipes_client(original)
    one.put(1)
    assert one.tasks == original.tasks
    assert [client.status().levels[0].waiting for client in (one, other)] == [1, 0]


def test_plugin_is_there_once_the_package_is_installed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        app="""
            from sqspipes import TaskClient

            def double(value):
                return 2 * value

            client = TaskClient("app").register_tasks([double])
        """,
        test_app="""
            import app

            def test_double(sqspipes_client):
                client = sqspipes_client(app.client)
                client.put(4)
                with client.run(iterate=True, drain=True) as results:
                    assert list(results) == [8]
        """,
    )
    plugin = [] if INSTALLED else ["-p", "sqspipes.testing.plugin"]
    pytester.runpytest_subprocess("-p", "no:cacheprovider", *plugin).assert_outcomes(passed=1)
