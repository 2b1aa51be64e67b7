"""Functions that return work to be done: what is async is run, and nothing is acknowledged that never ran."""

from __future__ import annotations

import asyncio
import collections
import functools
import io
import itertools
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from sqspipes import BatchFailure, OptionError, Output, Step, TaskCallback, TaskClient, current_message
from tests.integration.support import Seen, drain_of, passed, piped, run_until, waiting

MEMORY = {"broker": "memory://"}


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as most decorators do: Python does not see any more that it is ``async def``."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def last(method: Any, **options: Any) -> dict[str, Any]:
    """Return a task that is called once and then buried."""
    return {"method": method, "name": "last", "retries": 0, **options}


def letters_of(domain: str, *tasks: Any, value: Any = 7, **options: Any) -> list[str]:
    """Run one value through tasks; return what its dead letters say."""
    with piped(domain, MEMORY, *tasks, **options) as client:
        client.put(value)
        client.run(drain=True)
        return [letter.error_type + ": " + letter.error for letter in client.dead_letters()]


class Ran:
    """Remembers what ran, as a coroutine function, an async generator function and an awaitable object."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    async def keep(self, value: Any) -> Any:
        await asyncio.sleep(0)
        self.values.append(value)
        return value

    async def stream(self, value: Any) -> AsyncIterator[Any]:
        yield await self.keep(value)
        yield await self.keep(value + 1)

    def later(self, value: Any) -> Any:
        ran = self

        class Awaitable:
            def __await__(self) -> Any:
                return ran.keep(value).__await__()

        return Awaitable()


# What is async is run


def test_async_function_behind_a_decorator_runs_and_hands_on(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    ran, seen = Ran(), Seen()
    with piped(domain, pipe_broker, {"method": wrapped(ran.keep), "name": "work"}, seen.take) as client:
        client.put(7)
        assert client.run(drain=drain_of(pipe_broker)).done == 2
    assert ran.values == seen.values == [7]


@pytest.mark.parametrize("kind", ["keep", "stream", "later"])
@pytest.mark.parametrize("behind", ["decorator", "lambda", "lru_cache", "partial", "async def", "generator"])
def test_what_is_async_runs_before_its_message_is_acknowledged(kind: str, behind: str, domain: str) -> None:
    ran = Ran()
    function = getattr(ran, kind)

    async def returned(value: int) -> Any:
        return function(value)

    def yielded(value: int) -> Iterator[Any]:
        yield function(value)

    method = {
        "decorator": wrapped(function),
        "lambda": lambda value: function(value),
        "lru_cache": functools.lru_cache(function),
        "partial": functools.partial(wrapped(function)),
        "async def": returned,
        "generator": yielded,
    }[behind]
    seen = Seen()
    expected = [7, 8] if kind == "stream" else [7]
    with piped(domain, MEMORY, last(method)) as client:
        client.put(7)
        assert client.run(drain=True).dead == 0
        client.register_tasks([{"method": method, "name": "first"}, seen.take])
        client.put(17)
        assert client.run(drain=True).dead == 0
        client.register_tasks([{"method": method, "name": "read"}])
        client.put(27)
        with client.run(iterate=True) as results:
            read = list(itertools.islice(results, len(expected)))
    assert read == [value + 20 for value in expected]
    assert seen.values == [value + 10 for value in expected]
    assert ran.values == [value + more for more in (0, 10, 20) for value in expected]


@pytest.mark.parametrize("way", ["output", "callback", "yielded output", "yielded callback"])
def test_coroutine_runs_wherever_a_result_may_be(way: str, domain: str) -> None:
    ran, seen, called = Ran(), Seen(), Seen()

    def work(value: int) -> Any:
        made = ran.keep(value)
        result = Output(made, id="an-id") if "output" in way else TaskCallback(made, called.take, [value])
        return iter_of(result) if "yielded" in way else result

    def iter_of(result: Any) -> Iterator[Any]:
        yield result

    with piped(domain, MEMORY, work, seen.take) as client:
        client.put(7)
        assert client.run(drain=True).done == 2
    assert ran.values == seen.values == [7]
    assert called.values == ([7] if "callback" in way else [])


def test_all_of_a_run_is_awaited_on_one_loop_by_threads_that_know_their_message(domain: str) -> None:
    loops: list[Any] = []
    ids: list[tuple[str, str]] = []

    async def keep(name: str) -> str:
        loops.append(asyncio.get_running_loop())
        ids.append((name, current_message().id))
        return name

    async def plainly(name: str) -> None:
        await keep(name + "-2")

    with piped(domain, MEMORY, {"method": wrapped(keep), "name": "work", "workers": 4}, plainly) as client:
        for number in range(20):
            client.put(str(number), id=str(number))
        assert client.run(drain=True).done == 40
    assert len(set(loops)) == 1
    assert all(name == id for name, id in ids if not name.endswith("-2"))


def test_run_without_anything_async_has_no_loop(domain: str) -> None:
    names: list[str] = []

    def look(value: int) -> None:
        names.extend(thread.name for thread in threading.enumerate())

    with piped(domain, MEMORY, look) as client:
        client.put(1)
        client.run(drain=True)
    assert not [name for name in names if name.startswith("sqspipes loop")]


def test_error_of_a_coroutine_is_the_calls(domain: str) -> None:
    tries: list[int] = []

    async def fail(value: int) -> None:
        tries.append(value)
        raise ValueError(f"no {value}")

    assert letters_of(domain, last(wrapped(fail), retries=2)) == ["ValueError: no 7"]
    assert tries == [7, 7, 7]


def test_coroutine_that_does_not_end_is_cancelled_with_its_run_and_its_message_comes_back(
    domain: str,
) -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def hang(value: int) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with piped(domain, MEMORY, last(wrapped(hang))) as client:
        client.put(7)
        run = client.start(stop_timeout=0.2)
        passed(began)
        run.stop()
        assert run.wait(15).done == 0
        passed(cancelled)
        assert client.status().levels[0].in_flight == 1


def test_async_source_behind_a_decorator_runs(domain: str) -> None:
    left, seen = [3, 2, 1], Seen()

    async def fetch() -> int | None:
        return left.pop() if left else None

    with piped(domain, MEMORY, {"method": wrapped(fetch), "interval": 0.0}, seen.take) as client:
        client.run(drain=True)
        assert seen.values == [1, 2, 3]
        left.append(4)
        client.submit()
        client.run("take", drain=True)
        assert seen.values == [1, 2, 3, 4]


def test_coroutine_of_a_batch_runs_and_so_do_those_of_its_results(domain: str) -> None:
    ran, seen = Ran(), Seen()

    async def work(values: list[int]) -> list[Any]:
        return [ran.keep(value) for value in values]

    tasks = ({"method": wrapped(work), "name": "work", "batch": 3}, seen.take)
    with piped(domain, MEMORY, *tasks) as client:
        client.put_many(range(3))
        client.run(drain=True)
    assert sorted(ran.values) == sorted(seen.values) == [0, 1, 2]


def test_coroutines_of_a_batch_that_nobody_awaits_are_closed(domain: str) -> None:
    ran = Ran()

    def work(values: list[int]) -> None:
        raise BatchFailure({0: ValueError("first")}, [ran.keep(value) for value in values])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert letters_of(domain, last(work, batch=2)) == ["ValueError: first"]
        assert (
            "allowed are None and a list" in letters_of(domain, last(lambda _: [ran.keep(1)] * 3, batch=1))[0]
        )
    assert not ran.values


# Steps


class Kept(Step):
    """Keeps what it did, in order."""

    did: list[Any]

    def before_consume(self) -> None:
        self.did.append("before")

    def after_consume(self, instructions: Any) -> None:
        self.did.append("after")


def test_step_whose_consume_is_async_behind_a_decorator_runs_and_produces(domain: str) -> None:
    class Work(Kept):
        did: list[Any] = []  # noqa: RUF012

        @wrapped
        async def consume(self, value: int) -> int:
            self.did.append("consume")
            self.produce(value + 1)
            return value

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put(7)
        client.run(drain=True)
    assert Work.did == ["before", "consume", "after"]
    assert sorted(seen.values) == [7, 8]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_step_that_returns_an_async_generator_runs_it_to_its_end(kind: str, domain: str) -> None:
    async def both(step: Step, value: int) -> AsyncIterator[int]:
        step.did.append("consume")  # type: ignore[attr-defined]
        yield value
        step.produce(value + 1)

    class Plain(Kept):
        did: list[Any] = []  # noqa: RUF012
        label = "work"

        def consume(self, value: int) -> Any:
            return both(self, value)

    class Async(Kept):
        did: list[Any] = []  # noqa: RUF012
        label = "work"

        async def consume(self, value: int) -> Any:
            return both(self, value)

    step = Plain if kind == "def" else Async
    seen = Seen()
    with piped(domain, MEMORY, step, seen.take) as client:
        client.put(7)
        client.run(drain=True)
        assert client.call(17) == []
    assert step.did == ["before", "consume", "after"] * 2
    assert seen.values[:2] == [7, 8]


def test_async_rollback_behind_a_decorator_runs(domain: str) -> None:
    class Work(Step):
        retries = 0

        def consume(self, value: int) -> None:
            raise ValueError

        @wrapped
        async def rollback(self, value: int) -> None:
            self.produce(value + 1)

    seen = Seen()
    with piped(domain, MEMORY, Work, seen.take) as client:
        client.put(7)
        assert client.run(drain=True).dead == 0
    assert seen.values == [8]


@pytest.mark.parametrize("hook", ["setup", "before_consume", "after_consume", "rollback"])
@pytest.mark.parametrize("kind", ["async def", "yield"])
def test_hook_that_nobody_would_run_is_refused(hook: str, kind: str, domain: str) -> None:
    async def later(*args: Any) -> None:
        """Do nothing."""

    def stepwise(*args: Any) -> Iterator[int]:
        yield 1

    function = later if kind == "async def" else stepwise

    class Work(Step):
        def consume(self, value: int) -> None:
            if hook == "rollback":
                raise ValueError("failed")

    setattr(Work, hook, function)
    with pytest.raises(OptionError, match=f"{hook} (is async def|has a yield)"):
        piped(domain, MEMORY, Work)
    setattr(Work, hook, wrapped(function))
    if (hook, kind) != ("rollback", "async def"):  # that is run
        assert "which nobody would run" in letters_of(domain, last(Work))[0]


# Callbacks


@pytest.mark.parametrize("kind", ["async def", "decorated", "async generator", "generator"])
def test_callback_runs_to_its_end_before_its_message_is_acknowledged(
    kind: str, domain: str, pipe_broker: dict[str, Any]
) -> None:
    ran = Ran()

    def stepwise(value: int) -> Iterator[int]:
        ran.values.append(value)
        yield value

    async def only_once(value: int) -> AsyncIterator[int]:
        yield await ran.keep(value)

    callbacks = {"async def": ran.keep, "decorated": wrapped(ran.keep), "generator": stepwise}
    callback = callbacks.get(kind, only_once)
    with piped(domain, pipe_broker, last(lambda value: TaskCallback(value, callback, [value]))) as client:
        client.put(7)
        assert run_until(client, done=1).dead == 0
    assert ran.values == [7]


def test_callback_that_fails_when_it_is_awaited_fails_its_call(domain: str) -> None:
    async def fail() -> None:
        raise ValueError("no")

    assert letters_of(domain, last(lambda value: TaskCallback(value, fail))) == ["ValueError: no"]


# What nobody would run is told


LAZY: dict[str, Callable[[], Any]] = {
    "map": lambda: map(str, [1]),
    "filter": lambda: filter(None, [1]),
    "zip": lambda: zip([1], [2], strict=True),
    "enumerate": lambda: enumerate([1]),
    "chain": lambda: itertools.chain([1]),
    "list_iterator": lambda: iter([1]),
    "StringIO": lambda: io.StringIO("a line"),
    "reader": lambda: __import__("csv").reader(["a,b"]),
}


@pytest.mark.parametrize("kind", [set, frozenset, collections.deque])
def test_coroutine_in_any_collection_is_named_in_a_dead_letter(kind: Any, domain: str) -> None:
    async def later() -> None: ...

    made = later()
    (said,) = letters_of(domain, last(lambda value: kind([made])))
    made.close()
    assert said.startswith("EncodingError: ")
    assert "coroutine" in said


@pytest.mark.parametrize(
    "place", ["last", "first", "yielded", "in an Output", "in a list", "in a dict", "callback"]
)
@pytest.mark.parametrize("name", LAZY)
def test_iterator_that_nobody_would_run_is_named_in_a_dead_letter(name: str, place: str, domain: str) -> None:
    made = LAZY[name]

    def yielded(value: int) -> Iterator[Any]:
        yield made()

    method = {
        "last": lambda value: made(),
        "first": lambda value: made(),
        "yielded": yielded,
        "in an Output": lambda value: Output(made()),
        "in a list": lambda value: [1, [made()]],
        "in a dict": lambda value: {"rows": made()},
        "callback": lambda value: TaskCallback(made(), print),
    }[place]
    rest = [Seen().take] if place == "first" else []
    (said,) = letters_of(domain, last(method), *rest)
    assert said.startswith("EncodingError: ")
    assert name in said


@pytest.mark.parametrize("nested", [lambda made: [made], lambda made: {"a": (made,)}])
@pytest.mark.parametrize("rest", [[], [Seen().take]])
def test_coroutines_inside_a_result_are_told_and_closed(nested: Any, rest: list[Any], domain: str) -> None:
    ran = Ran()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (said,) = letters_of(domain, last(lambda value: nested(ran.keep(value))), *rest)
    assert said.startswith("EncodingError: ")
    assert "a coroutine" in said


def test_default_that_describes_everything_does_not_describe_work(domain: str) -> None:
    rest = [Seen().take]
    ran = Ran()
    (said,) = letters_of(domain, last(lambda value: {"a": LAZY["map"]()}), *rest, json_default=str)
    assert "a map" in said
    (said,) = letters_of(domain, last(lambda value: [ran.keep(value)]), *rest, json_default=str)
    assert "a coroutine" in said
    seen = Seen()
    assert letters_of(domain, last(lambda value: LAZY["map"]()), seen.take, json_default=list) == []
    assert seen.values == [["1"]]


def test_reader_of_results_gets_an_iterator_as_it_is(domain: str) -> None:
    with piped(domain, MEMORY, last(lambda value: map(str, [value]))) as client:
        client.put(7)
        with client.run(iterate=True) as results:
            assert list(next(results)) == ["7"]


def test_source_that_returns_an_iterator_ends_its_run_with_its_name(domain: str) -> None:
    source = {"method": lambda: map(str, [1]), "name": "fetch", "interval": 0.0, "retries": 0}
    with piped(domain, MEMORY, source) as client, pytest.raises(ValueError, match="fetch is a map"):
        client.run(drain=True)


def test_result_that_holds_itself_ends_at_the_last_task(domain: str) -> None:
    endless: list[Any] = [{}]
    endless[0]["endless"] = endless
    assert letters_of(domain, last(lambda value: endless)) == []


# Outside a run


def test_call_and_submit_tell_of_what_nobody_would_run(domain: str) -> None:
    with piped(domain, MEMORY, last(lambda value: map(str, [value]))) as client:
        with pytest.raises(ValueError, match="is a map, which nobody would run"):
            client.call(7)
        client.register_tasks([{"method": lambda: map(str, [1]), "name": "fetch"}])
        with pytest.raises(ValueError, match="is a map, which nobody would run"):
            client.submit()


async def increased(value: int) -> int:
    await asyncio.sleep(0)
    return value + 1


async def counted() -> AsyncIterator[int]:
    yield 1
    yield 2


async def nothing(value: int) -> None:
    """Do nothing."""


def test_call_and_submit_work_where_a_loop_runs_already(domain: str) -> None:
    threads: list[int] = []

    def here(value: int) -> int:
        threads.append(threading.get_ident())
        return value

    async def main() -> Any:
        with piped(domain, MEMORY, increased, {"method": here, "name": "here"}) as client:
            first = client.call(1)
            client.register_tasks(
                [{"method": counted, "name": "counted"}, {"method": nothing, "name": "nothing"}]
            )
            client.submit()
            return first, waiting(client, "nothing")

    assert asyncio.run(main()) == ([2], 2)
    assert threads == [threading.main_thread().ident]


def test_error_of_a_call_where_a_loop_runs_already_is_raised_there(domain: str) -> None:
    async def fail(value: int) -> None:
        raise ValueError(f"no {value}")

    async def main() -> None:
        TaskClient(domain, **MEMORY).register_tasks([fail]).call(1)

    with pytest.raises(ValueError, match="no 1"):
        asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sqspipes loop")]
