"""Around: functions of users around each call of a task, whatever kind of function the task is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from sqspipes import CurrentMessage, OptionError, Step, TaskClient, current_message
from tests.integration.support import Seen, piped

MEMORY = {"broker": "memory://"}

CallNext = Callable[[], Any]


class Log:
    """What stood around calls, in order: ``around(name)`` returns a function that notes when it begins and ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.messages: list[Any] = []

    def around(self, name: str) -> Callable[[CallNext, Any], Any]:
        def note(call_next: CallNext, message: Any) -> Any:
            self.messages.append(message)
            self.lines.append(f"{name} begins")
            try:
                return call_next()
            finally:
                self.lines.append(f"{name} ends")

        return note

    def generator(self) -> Callable[[CallNext, Any], Any]:
        def note(call_next: CallNext, message: Any) -> Iterator[Any]:
            self.messages.append(message)
            self.lines.append("begins")
            yield from call_next()
            self.lines.append("ends")

        return note


def double(value: int) -> int:
    return value * 2


def test_client_stands_around_the_task_and_both_around_the_call(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    log, seen = Log(), Seen()
    seen_by_task: list[CurrentMessage] = []

    def work(value: int) -> int:
        log.lines.append("call")
        seen_by_task.append(current_message())
        return value + 1

    tasks = [{"method": work, "around": [log.around("outer"), log.around("inner")]}, seen.take]
    with piped(domain, pipe_broker, *tasks, around=log.around("client")) as client:
        client.put(1, id="a", group="g")
        with client.start():
            assert seen.wait(1) == [2]
    assert log.lines[:7] == [
        *("client begins", "outer begins", "inner begins", "call", "inner ends", "outer ends", "client ends"),
    ]
    assert [(m.id, m.group, m.attempt) for m in log.messages[:3]] == [("a", "g", 1)] * 3
    assert seen_by_task[0].id == "a"


def test_what_an_around_function_returns_is_the_result(domain: str) -> None:
    def with_flag(call_next: CallNext, message: CurrentMessage) -> Any:
        return "off" if message.group == "off" else call_next()

    client = TaskClient(domain, **MEMORY).register_tasks([{"method": double, "around": with_flag}])
    client.put(1, group="off")
    client.put(2, group="on")
    with client.run(iterate=True) as results:
        assert sorted(str(next(results)) for _ in range(2)) == ["4", "off"]
    client.close()


def test_what_an_around_function_raises_is_a_failed_attempt(domain: str, pipe_broker: dict[str, Any]) -> None:
    attempts: list[int] = []

    def fails_once(call_next: CallNext, message: CurrentMessage) -> Any:
        attempts.append(message.attempt)
        result = call_next()
        if message.attempt == 1:
            raise ValueError("not yet")
        return result

    seen = Seen()
    with piped(domain, pipe_broker, {"method": double, "around": fails_once}, seen.take) as client:
        client.put(4)
        with client.start() as run:
            assert seen.wait(1) == [8]
    assert attempts == [1, 2]
    assert run.summary.failed == 1


def test_variable_that_is_set_around_a_call_is_seen_in_it(domain: str) -> None:
    session: ContextVar[str] = ContextVar("session")
    found: list[str] = []

    def with_session(call_next: CallNext, message: CurrentMessage) -> Any:
        token = session.set(f"session of {message.id}")
        try:
            return call_next()
        finally:
            session.reset(token)

    def work(value: int) -> None:
        found.append(session.get())

    with piped(domain, MEMORY, {"method": work, "workers": 4}, around=with_session) as client:
        ids = {f"session of {client.put(n)}" for n in range(20)}
        client.run(drain=True)
    assert set(found) == ids


def test_generator_is_covered_to_its_end(domain: str, pipe_broker: dict[str, Any]) -> None:
    log, seen = Log(), Seen()

    def split(value: str) -> Iterator[str]:
        for part in value.split():
            log.lines.append(part)
            yield part

    with piped(domain, pipe_broker, {"method": split, "around": log.generator()}, seen.take) as client:
        client.put("a b")
        with client.start():
            assert sorted(seen.wait(2)) == ["a", "b"]
    assert log.lines == ["begins", "a", "b", "ends"]


def test_async_function_and_async_generator_are_covered(domain: str, pipe_broker: dict[str, Any]) -> None:
    lines: list[str] = []
    seen = Seen()

    async def fetch(value: str) -> str:
        lines.append("fetch")
        return value + value

    async def split(value: str) -> AsyncIterator[str]:
        for part in value:
            yield part

    async def around(call_next: CallNext, message: CurrentMessage) -> Any:
        lines.append("fetch begins")
        result = await call_next()
        lines.append("fetch ends")
        return result

    async def around_each(call_next: CallNext, message: CurrentMessage) -> AsyncIterator[Any]:
        async for value in call_next():
            yield value.upper()

    def plain(call_next: CallNext, message: CurrentMessage) -> Any:
        lines.append("plain")
        return call_next()

    with piped(domain, pipe_broker, fetch, split, seen.take, around=[around, around_each, plain]) as client:
        client.put("x")
        with client.start():
            assert seen.wait(2) == ["X", "X"]
    assert lines == ["fetch begins", "fetch", "fetch ends", "plain", "plain"]


def test_batch_is_one_call_for_its_messages(domain: str, pipe_broker: dict[str, Any]) -> None:
    log, seen = Log(), Seen()

    def store(values: list[int]) -> list[int]:
        return values

    task = {"method": store, "batch": 3, "batch_wait": 10.0, "around": log.around("batch")}
    with piped(domain, pipe_broker, task, seen.take) as client:
        ids = [client.put(n) for n in range(3)]
        with client.start():
            assert sorted(seen.wait(3)) == [0, 1, 2]
    (messages,) = log.messages
    assert sorted(message.id for message in messages) == sorted(ids)


def test_source_is_called_for_no_message(domain: str) -> None:
    log, seen = Log(), Seen()

    def tick() -> int:
        return 7

    with piped(
        domain, MEMORY, {"method": tick, "interval": 0.01, "around": log.around("tick")}, seen.take
    ) as client:
        with client.start():
            assert seen.wait(2)[:2] == [7, 7]
        client.submit()
    assert set(log.messages) == {None}


def test_source_that_yields_is_covered(domain: str) -> None:
    log, seen = Log(), Seen()

    def rows() -> Iterator[int]:
        yield from range(3)

    with piped(domain, MEMORY, {"method": rows, "around": log.generator()}, seen.take) as client:
        client.run(drain=True)
    assert seen.values == [0, 1, 2]
    assert log.lines == ["begins", "ends"]


def test_step_has_its_around_functions_as_an_attribute(domain: str) -> None:
    log, seen = Log(), Seen()

    class Fetch(Step):
        around = (log.around("step"),)

        def consume(self, value: int) -> int:
            log.lines.append("consume")
            return value

    with piped(domain, MEMORY, Fetch, seen.take) as client:
        client.put(5)
        with client.start():
            assert seen.wait(1) == [5]
    assert log.lines == ["step begins", "consume", "step ends"]


def test_trial_calls_through_them_too(domain: str) -> None:
    log = Log()
    client = TaskClient(domain, **MEMORY, around=log.around("client")).register_tasks([double])
    assert client.call(4) == [8]
    assert log.lines == ["client begins", "client ends"]


def test_nothing_is_on_the_path_without_them(domain: str) -> None:
    client = TaskClient(domain, **MEMORY).register_tasks([double])
    assert client._pipe.plan(client.tasks[0]).function is double


# What cannot be


def plain(call_next: CallNext, message: Any) -> Any:
    return call_next()


async def fetch(value: int) -> int:
    return value


def split(value: int) -> Iterator[int]:
    yield value


@pytest.mark.parametrize(
    ("method", "kind", "allowed"),
    [
        (fetch, "async def", "'async def around(call_next, message): return await call_next()'"),
        (split, "a generator function", "'def around(call_next, message): yield from call_next()'"),
    ],
)
def test_function_of_another_kind_is_refused_at_once(
    domain: str, method: Any, kind: str, allowed: str
) -> None:
    name = method.__name__
    with pytest.raises(OptionError) as refused:
        TaskClient(domain, **MEMORY).register_tasks([{"method": method, "around": plain}])
    assert (
        str(refused.value)
        == f"task '{name}' is {kind}, and its around function plain is def: allowed is {allowed}"
    )
    with pytest.raises(
        OptionError, match=rf"task '{name}' is {kind}, and none of the client's around .*plain"
    ):
        TaskClient(domain, **MEMORY, around=plain).register_tasks([method])


def test_method_that_is_a_text_is_looked_at_when_it_is_imported(domain: str) -> None:
    task = {"method": f"{__name__}:fetch", "around": plain}
    client = TaskClient(domain, **MEMORY).register_tasks([task])
    with pytest.raises(OptionError, match="task 'fetch' is async def, and its around function plain is def"):
        client.run(drain=True)


@pytest.mark.parametrize("around", [3, "name", [plain, None]])
def test_what_cannot_be_called_is_refused(domain: str, around: Any) -> None:
    allowed = r"allowed is a callable of \(call_next, message\), or a list of them"
    with pytest.raises(OptionError, match=rf"^around is .*: {allowed}"):
        TaskClient(domain, **MEMORY, around=around)
    with pytest.raises(OptionError, match=rf"^task 'double': around is .*: {allowed}"):
        TaskClient(domain, **MEMORY).register_tasks([{"method": double, "around": around}])
