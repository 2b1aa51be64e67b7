"""Registration: what a task may be, its keys, its defaults, and that functions can take what they will get."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sqspipes import OptionError, SignatureError, TaskClient
from tests.integration.support import Seen, piped, run_until


def generate(max_size: int) -> str:
    """Be a source, given its argument."""
    return "x" * max_size


def reduce_word(value: str, keep: str = "vowels") -> tuple[str, str]:
    """Be a task with an argument of its own."""
    return value, keep


def count(data: Any) -> None:
    """Be a task."""


def client_of(*tasks: Any, **options: Any) -> TaskClient:
    """Return a client that reaches nothing."""
    return TaskClient("app", broker="memory://", **options).register_tasks(list(tasks))


# What a task may be


def test_functions_and_dicts_are_tasks_in_their_order() -> None:
    client = client_of(generate, {"method": reduce_word}, count)
    assert [task.name for task in client.tasks] == ["generate", "reduce_word", "count"]


def test_registering_returns_the_client_and_replaces_what_was_there() -> None:
    client = TaskClient("app", broker="memory://")
    assert client.register_tasks([generate, count]) is client
    client.register_tasks([count])
    assert [task.name for task in client.tasks] == ["count"]


def test_wrong_registration_changes_nothing() -> None:
    client = client_of(count)
    with pytest.raises(OptionError):
        client.register_tasks([reduce_word, {"method": count, "workers": 0}])
    assert [task.name for task in client.tasks] == ["count"]


def test_registering_is_refused_while_a_run_goes_on() -> None:
    client = client_of(count)
    with client.start() as run:
        with pytest.raises(OptionError, match="run"):
            client.register_tasks([count])
        run.stop()
        run.wait()
        client.register_tasks([reduce_word])
    client.close()


def test_defaults_are_those_of_the_documentation() -> None:
    (task,) = client_of(count).tasks
    assert (task.args, task.workers, task.priorities, task.interval) == ((), 1, 1, None)
    assert (task.lease, task.retries, task.backoff, task.non_retryable) == (60.0, 8, None, ())
    assert (task.on_error, task.strict) == ("retry", False)


def test_task_has_as_many_priorities_as_the_one_before_it() -> None:
    first, second = {"method": reduce_word, "priorities": 3}, {"method": count, "name": "second"}
    client = client_of(first, second, {"method": count, "name": "third", "priorities": 2})
    assert [task.priorities for task in client.tasks] == [3, 3, 2]


def test_task_takes_from_the_client_what_it_does_not_say() -> None:
    own = {"lease": 10, "retries": None, "backoff": 2, "non_retryable": (KeyError,), "on_error": "raise"}
    second = {"method": count, "name": "second", "strict": True, **own}
    first, second_task = client_of(count, second, lease=30, retries=3, non_retryable=OSError).tasks
    assert (first.lease, first.retries, first.non_retryable) == (30.0, 3, (OSError,))
    assert (second_task.lease, second_task.retries, second_task.backoff) == (10.0, None, 2.0)
    assert second_task.non_retryable == (KeyError,)
    assert (second_task.on_error, second_task.strict) == ("raise", True)


def test_task_is_found_by_name_and_by_place() -> None:
    client = client_of(generate, count)
    assert client.get_task_by_name("count") is client.get_task_by_name(1) is client.tasks[1]


# What is refused


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("workers", 0, "1 to 1,000"),
        ("workers", 1001, "1 to 1,000"),
        ("workers", True, "1 to 1,000"),
        ("priorities", 0, "1 to 16"),
        ("priorities", 17, "1 to 16"),
        ("args", "abc", "tuple"),
        ("interval", -1, "0"),
        ("lease", 1, "5 to 240"),
        ("retries", -1, "0"),
        ("backoff", "1", "0"),
        ("non_retryable", "ValueError", "exception types"),
        ("on_error", "stop", "'retry' or 'raise'"),
        ("strict", "yes", "True or False"),
        ("method", 3, "callable"),
        ("method", "no_colon", "package.module:function"),
    ],
)
def test_error_names_task_key_value_and_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError) as caught:
        client_of({"method": count, "name": "counter", key: value})
    for part in ("counter", key, repr(value), allowed):
        assert part in str(caught.value)


def test_unknown_key_is_named_with_task_value_and_what_was_meant() -> None:
    with pytest.raises(OptionError) as caught:
        client_of({"method": count, "wokers": 32})
    for part in ("count", "'wokers'", "32", "did you mean 'workers'?", "priorities"):
        assert part in str(caught.value)


def test_second_task_of_a_name_is_refused() -> None:
    with pytest.raises(OptionError, match="'count'"):
        client_of(count, {"method": reduce_word, "name": "count"})


def test_interval_is_for_the_first_task_only() -> None:
    with pytest.raises(OptionError, match=r"'count'.*interval is 1.*first task"):
        client_of(reduce_word, {"method": count, "interval": 1})


def test_lambda_wants_a_name() -> None:
    with pytest.raises(OptionError, match="name"):
        client_of(lambda value: value)
    assert client_of({"method": lambda value: value, "name": "same"}).tasks[0].name == "same"


@pytest.mark.parametrize("name", ["a b", "dead", "output", "a--b", "x" * 80, 3])
def test_name_that_cannot_name_a_queue_is_refused(name: Any) -> None:
    with pytest.raises(OptionError, match="name is"):
        client_of({"method": count, "name": name})


@pytest.mark.parametrize("tasks", [[], None, count, [3], ["no_colon"]])
def test_list_of_something_else_is_refused(tasks: Any) -> None:
    with pytest.raises(OptionError):
        TaskClient("app", broker="memory://").register_tasks(tasks)


def test_almost_right_task_is_asked_back() -> None:
    client = client_of(reduce_word, count)
    for use in (lambda: client.put(1, task="cuont"), lambda: client.run("cuont")):
        with pytest.raises(OptionError, match=r"'cuont'.*did you mean 'count'\?.*reduce_word, count"):
            use()


def test_place_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="7"):
        client_of(count).get_task_by_name(7)


# Signatures


def test_function_that_cannot_take_its_arguments_is_refused_at_the_start() -> None:
    client = client_of(count, {"method": generate, "args": (10,)})
    with pytest.raises(SignatureError, match=r"generate\(max_size.*\).* cannot take \(value, 10\)"):
        client.run(drain=True)


def test_every_signature_is_bound_before_anything_starts(domain: str) -> None:
    seen = Seen()
    with piped(domain, {"broker": "memory://"}, seen.take, {"method": generate, "args": (10,)}) as client:
        client.put(1)
        with pytest.raises(SignatureError):
            client.start()
        assert client.status().levels[0].waiting == 1
    assert seen.values == []


def test_error_about_a_signature_shows_the_function_as_it_is_written() -> None:
    client = client_of(count, {"method": generate, "args": (10,), "name": "other"})
    with pytest.raises(SignatureError, match=r"task 'other': generate\("):
        client.run(drain=True)


def test_source_that_cannot_take_its_args_is_refused_at_the_start() -> None:
    client = client_of({"method": generate, "interval": 1}, count)
    with pytest.raises(SignatureError, match=r"generate\(max_size.*\).* cannot take \(\)"):
        client.run(drain=True)


def test_args_of_the_run_are_bound_too() -> None:
    client = client_of(generate, count)
    with pytest.raises(SignatureError, match=r"cannot take \(value, 1, 2\)|cannot take \(1, 2\)"):
        client.run("generate", args=(1, 2), drain=True)


def test_functions_without_a_signature_are_trusted(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": int, "name": "number"}, seen.take) as client:
        client.put("12")
        with client.start():
            assert seen.wait(1) == [12]


def test_args_follow_the_value(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": reduce_word, "args": ("consonants",)}, seen.take) as client:
        client.put("hello")
        with client.start():
            assert seen.wait(1) == [["hello", "consonants"]]


# Methods as text, and none


def test_method_as_text_is_imported_when_the_task_first_runs(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_tasks.py").write_text(
        "class Late:\n    @staticmethod\n    def double(n): return 2 * n\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = Seen()
    with piped(domain, {"broker": "memory://"}, {"method": "late_tasks:Late.double"}, seen.take) as client:
        assert client.tasks[0].name == "double"
        client.put(21)
        assert "late_tasks" not in sys.modules
        with client.start():
            assert seen.wait(1) == [42]
    del sys.modules["late_tasks"]


@pytest.mark.parametrize("method", ["no_such_package.tasks:work", "json:no_such_function", "json:__name__"])
def test_method_that_cannot_be_imported_is_an_error_when_it_runs(method: str) -> None:
    with client_of({"method": method, "name": "work"}, count) as client:
        client.put(1)
        with pytest.raises(OptionError, match=f"'work'.*'{method}'"):
            client.run("work", drain=True)
        assert client.run("count", drain=True).done == 0


def test_task_without_a_method_is_put_to_watched_and_redriven_but_not_run(
    domain: str, tmp_path: Path
) -> None:
    broker, seen = {"broker": f"sqlite:///{tmp_path}/pipe.db"}, Seen()

    def work(value: int) -> None:
        raise ValueError(value)

    with (
        piped(domain, broker, {"name": "work"}) as here,
        piped(domain, broker, work, retries=0) as there,
        piped(domain, broker, {"method": seen.take, "name": "work"}) as mended,
    ):
        here.put(1)
        assert here.status().levels[0].waiting == 1
        with pytest.raises(OptionError, match="'work' has no method"):
            here.run("work")
        there.run(drain=True)
        assert [letter.value for letter in here.dead_letters()] == [1]
        assert here.redrive() == 1
        mended.run(drain=True)
    assert seen.values == [1]


def test_run_of_all_leaves_out_tasks_without_a_method(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, seen.take, {"name": "elsewhere"}) as client:
        client.put(1)
        with client.start():
            seen.wait(1)


def test_first_task_without_a_method_takes_values(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, {"name": "elsewhere"}, count) as client:
        client.put(1)
        assert client.status().levels[0].waiting == 1


def test_workers_are_threads_and_as_many_as_asked_for(domain: str, pipe_broker: dict[str, Any]) -> None:
    together, three = Seen(), Seen()

    def work(value: int) -> None:
        three.take(value)
        three.wait(3)
        together.take(value)

    with piped(domain, pipe_broker, {"method": work, "workers": 3}) as client:
        client.put_many(range(3))
        with client.start():
            together.wait(3)


def test_one_worker_calls_one_after_the_other(domain: str, pipe_broker: dict[str, Any]) -> None:
    inside, most = [0], [0]

    def work(value: int) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1

    with piped(domain, pipe_broker, work) as client:
        client.put_many(range(20))
        assert run_until(client, done=20).done == 20
    assert most == [1]
