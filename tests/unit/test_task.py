"""Tasks: checked once, with errors that say what is allowed, and named as their queues are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqspipes.defaults import LONGEST_BACKOFF
from sqspipes.errors import OptionError, SignatureError
from sqspipes.messages import queue_names
from sqspipes.tasks.registration import KEYS, make_tasks
from sqspipes.tasks.task import Task
from tests.builders import shown

DEFAULTS: dict[str, Any] = {
    "lease": 60.0,
    "retries": 8,
    "backoff": None,
    "non_retryable": (),
    "on_error": "retry",
    "strict": False,
    "linger": None,
}


def work(value: Any) -> Any:
    return value


def more_work(value: Any, *rest: Any) -> Any:
    return value


def feed() -> int:
    return 1


def make(*given: Any, **defaults: Any) -> tuple[Task, ...]:
    return make_tasks("domain", list(given), {**DEFAULTS, **defaults})


# From what users write


def test_function_is_a_task_with_its_name() -> None:
    (task,) = make(work)
    assert (task.name, task.method, task.index, task.workers, task.priorities) == ("work", work, 0, 1, 1)
    assert (task.retries, task.lease, task.on_error, task.strict) == (8, 60.0, "retry", False)


def test_method_given_as_text_is_named_by_its_end_and_not_imported() -> None:
    (task,) = make("no.such.module:Worker.work")
    assert task.name == "work"
    assert not task.is_source
    with pytest.raises(OptionError, match="cannot be imported"):
        task.function()


def test_method_given_as_text_is_imported_when_it_is_asked_for() -> None:
    import json

    assert make("json:dumps")[0].function() is json.dumps
    with pytest.raises(OptionError, match="allowed is a callable"):
        make({"method": "json:__name__", "name": "x"})[0].function()


def test_priorities_are_handed_down_the_line() -> None:
    tasks = make({"method": work, "priorities": 4}, more_work, {"name": "end", "priorities": 2})
    assert [task.priorities for task in tasks] == [4, 4, 2]


def test_task_without_a_method_can_be_named_but_not_run() -> None:
    (task,) = make({"name": "elsewhere"})
    assert not task.is_source
    with pytest.raises(OptionError, match="no method"):
        task.function()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "retries": st.none() | st.integers(0, 9),
            "strict": st.booleans(),
            "lease": st.floats(5, 240),
            "on_error": st.sampled_from(["retry", "raise"]),
        },
    )
)
def test_task_takes_from_the_client_what_it_does_not_say_itself(options: dict[str, Any]) -> None:
    (own,) = make({"method": work, **options})
    (inherited,) = make(work, **options)
    assert own == inherited
    assert all(getattr(own, key) == value for key, value in options.items())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (1, "task 0 is 1"),
        (None, "task 0 is None"),
        ({}, "task 0 has no name"),
        ({"method": 5, "name": "x"}, "method is 5"),
        ({"method": "no_colon", "name": "x"}, "method is 'no_colon'"),
        ({"method": ":f", "name": "x"}, "method is ':f'"),
        ({"method": lambda value: value}, "is a lambda"),
        ({"method": functools.partial(work)}, "has no name"),
        ({"method": work, "name": "a--b"}, "name is 'a--b'"),
        ({"method": work, "name": "dead"}, "name is 'dead'"),
        ({"method": work, "name": "n" * 80}, "characters, allowed are 80"),
        ({"method": work, "worker": 2}, "did you mean 'workers'?"),
        ({"method": work, 3: 2}, "key 3"),
        ({"method": work, "workers": 0}, "workers is 0"),
        ({"method": work, "workers": 1_001}, "workers is 1001"),
        ({"method": work, "workers": True}, "workers is True"),
        ({"method": work, "workers": 1.0}, "workers is 1.0"),
        ({"method": work, "priorities": 17}, "priorities is 17"),
        ({"method": work, "priorities": 0}, "priorities is 0"),
        ({"method": work, "args": "ab"}, "args is 'ab'"),
        ({"method": work, "lease": 4}, "lease is 4"),
        ({"method": work, "lease": 241}, "lease is 241"),
        ({"method": work, "lease": float("nan")}, "lease is nan"),
        ({"method": work, "retries": -1}, "retries is -1"),
        ({"method": work, "retries": 1.5}, "retries is 1.5"),
        ({"method": work, "backoff": -1}, "backoff is -1"),
        ({"method": work, "backoff": "1"}, "backoff is '1'"),
        ({"method": work, "non_retryable": ["ValueError"]}, "non_retryable is "),
        ({"method": work, "on_error": "retyr"}, "did you mean 'retry'?"),
        ({"method": work, "strict": 1}, "strict is 1"),
        ({"method": work, "linger": -0.1}, "linger is -0.1: allowed is seconds, 0 to 10"),
        ({"method": feed, "interval": -1}, "interval is -1"),
        ({"method": feed, "interval": "1"}, "interval is '1'"),
    ],
    ids=shown,
)
def test_error_names_the_option_and_its_value(given: Any, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        make(given)
    assert says in str(caught.value)


@pytest.mark.parametrize("given", [[], None, "work", {}, work, 3])
def test_tasks_are_a_list_with_at_least_one(given: Any) -> None:
    with pytest.raises(OptionError, match="tasks is "):
        make_tasks("domain", given, DEFAULTS)


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(OptionError, match="named 'work'"):
        make(work, work)


def test_interval_is_for_the_first_task_only() -> None:
    with pytest.raises(OptionError, match="first task only"):
        make(feed, {"method": work, "interval": 1})


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(work)
    | st.just(feed),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=6,
)


@settings(max_examples=200)
@given(anything)
def test_whatever_is_given_is_a_task_or_an_option_error(given: Any) -> None:
    try:
        tasks = make_tasks("domain", [given], DEFAULTS)
    except OptionError:
        return
    assert len(tasks) == 1
    assert all(queue_names.parse(queue) is not None for queue in (*tasks[0].queues, tasks[0].dead_queue))


# Queues and levels


def test_queues_are_named_level_0_first() -> None:
    (task,) = make({"method": work, "priorities": 3})
    assert task.queues == ("domain--work.fifo", "domain--work--p1.fifo", "domain--work--p2.fifo")
    assert task.dead_queue == "domain--work--dead.fifo"


@given(st.integers(1, 16), st.integers())
def test_priority_is_lowered_to_the_highest_level_there_is(priorities: int, priority: int) -> None:
    (task,) = make({"method": work, "priorities": priorities})
    assert 0 <= task.level(priority) < priorities
    if 0 <= priority < priorities:
        assert task.level(priority) == priority


# Sources and signatures


def generator() -> Iterator[int]:
    yield 1


def optional(value: Any = None) -> Any:
    return value


def with_args(queue: Any, limit: int) -> None:
    """Take two args."""


@pytest.mark.parametrize(
    ("given", "source"),
    [
        (feed, True),
        (generator, True),
        (lambda: 1, True),
        (work, False),
        (optional, False),
        (more_work, False),
        ({"method": with_args, "args": [1, 2]}, True),
        ({"method": with_args, "args": [1]}, False),
        ({"method": optional, "interval": 1}, True),
        ({"method": "json:dumps", "interval": 1}, True),
        ("json:dumps", False),
    ],
    ids=shown,
)
def test_first_task_that_takes_no_value_is_a_source(given: Any, source: bool) -> None:
    given = given if isinstance(given, dict | str) else {"method": given}
    given = given if isinstance(given, str) else {"name": "x", **given}
    (task,) = make(given)
    assert task.is_source is source
    assert bool(task.queues) is not source


def test_only_a_first_task_is_a_source() -> None:
    assert not make(work, feed)[1].is_source
    with pytest.raises(SignatureError, match=r"feed\(\)"):
        make(work, feed)[1].check_signature()


@pytest.mark.parametrize(
    "given",
    [
        feed,
        work,
        more_work,
        {"method": with_args, "args": [1]},
        {"method": work, "args": []},
        {"method": print},
    ],
    ids=shown,
)
def test_function_that_can_take_what_it_is_given_passes(given: Any) -> None:
    make(given)[0].check_signature()


@pytest.mark.parametrize(
    "given",
    [
        {"method": work, "args": [1, 2]},
        {"method": feed, "args": [1]},
        {"method": feed, "interval": 1, "args": [1]},
    ],
    ids=shown,
)
def test_function_that_cannot_take_what_it_is_given_is_refused(given: Any) -> None:
    with pytest.raises(SignatureError, match="cannot take"):
        make(given)[0].check_signature()


# Backoff and interval


@given(st.integers(1, 10**6))
def test_default_backoff_doubles_to_a_cap_with_half_to_full_jitter(attempt: int) -> None:
    full = min(LONGEST_BACKOFF, 2.0 ** min(attempt - 1, 30))
    assert full / 2 <= make(work)[0].delay(attempt, ValueError()) <= full


def test_backoff_is_seconds_or_a_function_of_attempt_and_error() -> None:
    error = ValueError()
    assert make({"method": work, "backoff": 0})[0].delay(3, error) == 0.0
    seen: list[tuple[int, BaseException]] = []

    def backoff(attempt: int, error: BaseException) -> float:
        seen.append((attempt, error))
        return 2

    assert make({"method": work, "backoff": backoff})[0].delay(3, error) == 2.0
    assert seen == [(3, error)]


@pytest.mark.parametrize("seconds", [-1, "1", None, float("nan")])
def test_backoff_function_that_gives_no_seconds_is_an_option_error(seconds: Any) -> None:
    (task,) = make({"method": work, "backoff": lambda attempt, error: seconds})
    with pytest.raises(OptionError, match="backoff is "):
        task.delay(1, ValueError())


@pytest.mark.parametrize(("interval", "expected"), [(None, 0.0), (0, 0.0), (2, 2.0), (lambda: 3, 3.0)])
def test_interval_is_seconds_or_a_function(interval: float | Callable[[], float], expected: float) -> None:
    assert make({"method": feed, "interval": interval})[0].next_interval() == expected
