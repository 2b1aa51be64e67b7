"""A function of the user's that forks, and whose child comes back out of it: by an exit, by an error, by returning.

The arguments are a group of kinds of functions, and the URLs of brokers. A line is printed for each kind and broker:
the exit codes of the three children, what came to the end of the pipe, and how many messages died.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from sqspipes import Step, TaskCallback, TaskClient

hows: list[str] = []  # how a child is to come back, until it is forked
codes: list[int] = []
kept: list[Any] = []
parent = os.getpid()


def used(value: Any = 1, *_: Any) -> Any:
    """Return the value; a child that has gone on, where it should have ended, says so."""
    if os.getpid() != parent:
        os.write(1, b"a child has gone on\n")
    return value


def forks(value: Any = 1, *_: Any) -> Any:
    """Return the value; the first time a child is forked before that."""
    used()
    if not hows:
        return value
    how = hows.pop()
    pid = os.fork()
    if pid:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return value
    signal.alarm(20)  # ends one that hangs
    if how == "exit":
        sys.exit(3)
    if how == "raise":
        raise ValueError("provoked by the test")
    return value


async def forks_async(value: Any = 1, *_: Any) -> Any:
    return forks(value)


async def used_async(value: Any = 1) -> Any:
    return used(value)


def keep(value: Any) -> None:
    kept.append(used(value))


# Plain functions


def generator(value: int) -> Iterator[int]:
    yield forks(value)


def generator_at_its_end(value: int) -> Iterator[int]:
    yield used(value)
    forks()


def generator_when_closed(value: int) -> Iterator[Any]:
    try:
        yield object() if hows else value  # no JSON: it fails, and is closed
    finally:
        forks()


def batch(values: list[int]) -> list[int]:
    return [forks(value) for value in values]


def callback(value: int) -> TaskCallback:
    return TaskCallback(used(value), forks)


def fails_once(value: int) -> int:
    if hows:
        raise ValueError("provoked by the test")
    return value


def a_set(value: int) -> Any:
    return {used(value)}


def forks_instead(part: Any) -> Any:
    return forks(min(part))


def source() -> int | None:
    return forks() if hows else None


def plain_source() -> Iterator[int]:
    yield used()


def generator_source() -> Iterator[int]:
    yield forks()


def generator_source_at_its_end() -> Iterator[int]:
    yield used()
    forks()


def generator_source_when_closed() -> Iterator[Any]:
    try:
        yield object() if hows else 1
    finally:
        forks()


# Coroutines and async generators


async def coroutine(value: int) -> int:
    return forks(value)


async def between_awaits(value: int) -> int:
    await asyncio.sleep(0.001)
    forks()
    if os.getpid() == parent:
        await asyncio.sleep(0.001)
    return value


async def then_awaits(value: int) -> int:
    forks()
    await asyncio.sleep(0)
    return used(value)


async def deep(value: int) -> int:
    async def inner() -> int:
        await asyncio.sleep(0.001)
        async with asyncio.Lock():
            return await forks_async(value)

    return await inner()


async def gathered(value: int) -> int:
    others = [asyncio.sleep(0.001, value) for _ in range(3)]
    return (await asyncio.gather(forks_async(value), *others))[0]


async def own_task(value: int) -> int:
    async def later() -> int:
        await asyncio.sleep(0.001)
        return forks(value)

    return await asyncio.create_task(later())


async def thread(value: int) -> int:
    return await asyncio.to_thread(forks, value)


async def soon(value: int) -> int:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def come_back() -> None:
        forks()
        done.set_result(value)

    loop.call_soon(come_back)
    return await done


async def soon_before_a_task(value: int) -> int:
    coming = asyncio.create_task(soon(value))
    await asyncio.sleep(0)
    after_it = asyncio.create_task(used_async())  # its turn is right after that of the callback
    await after_it
    return await coming


async def async_generator(value: int) -> AsyncIterator[int]:
    await asyncio.sleep(0)
    yield forks(value)
    await asyncio.sleep(0)


async def async_generator_at_its_end(value: int) -> AsyncIterator[int]:
    yield used(value)
    await asyncio.sleep(0)
    forks()


async def async_generator_when_closed(value: int) -> AsyncIterator[Any]:
    try:
        yield object() if hows else value
    finally:
        await asyncio.sleep(0)
        forks()


def wrapped(value: int) -> Any:
    return forks_async(value)


def async_callback(value: int) -> TaskCallback:
    return TaskCallback(used(value), forks_async)


async def callback_of_coroutine(value: int) -> TaskCallback:
    return TaskCallback(used(value), forks)


async def async_source() -> int | None:
    return forks() if hows else None


async def async_generator_source() -> AsyncIterator[int]:
    await asyncio.sleep(0)
    yield forks()


def marked(value: int) -> Any:
    return asyncio.sleep(0, forks(value))


if hasattr(inspect, "markcoroutinefunction"):  # from Python 3.12
    marked = inspect.markcoroutinefunction(marked)


# Steps: all their methods but one only say if a child has gone on


def made_step(hook: str, *, awaits: bool = False, hooks_await: bool = False) -> type[Step]:
    """Return a step one of whose methods forks."""

    def method(name: str) -> Callable[..., Any]:
        def plain(self: Step, *args: Any) -> Any:
            made = (forks if name == hook else used)(*args)
            if name == "rollback":
                self.produce(made)
            if name == "consume" and hook == "rollback":
                raise ValueError("provoked by the test")
            return made if name == "consume" else None

        async def coroutine(self: Step, *args: Any) -> Any:
            await asyncio.sleep(0)
            return plain(self, *args)

        return coroutine if awaits and (hooks_await or name == "consume") else plain

    names = ["setup", "before_consume", "consume", "after_consume", "teardown"]
    names += ["rollback"] * (hook == "rollback")
    made = {name: method(name) for name in names}
    if hook == "__init__":
        made[hook] = initialise
    return type("step", (Step,), made)


def initialise(self: Step) -> None:
    forks()


class Generates(Step):
    def consume(self, value: int) -> Iterator[int]:
        yield used(value)
        forks()

    def after_consume(self, instructions: Any) -> None:
        used()


class Wraps(Step):
    def consume(self, value: int) -> Any:
        return used_async(value)

    def after_consume(self, instructions: Any) -> None:
        forks()


class GeneratesAsync(Step):
    async def consume(self, value: int) -> AsyncIterator[int]:  # type: ignore[override]
        yield used(value)
        await asyncio.sleep(0)
        forks()

    def after_consume(self, instructions: Any) -> None:
        used()


HOOKS = ("__init__", "setup", "before_consume", "consume", "after_consume", "rollback", "teardown")


def run(client: TaskClient) -> None:
    client.run(drain=True)


def put(client: TaskClient) -> None:
    client.put(1)
    client.run(drain=True)


def put_many(values: Any = (1,), **options: Any) -> Callable[[TaskClient], None]:
    def act(client: TaskClient) -> None:
        client.put_many(values() if callable(values) else values, **options)
        client.run(drain=True)

    return act


def put_no_json(client: TaskClient) -> None:
    client.put({1})
    client.run(drain=True)


def submit(client: TaskClient) -> None:
    client.submit(priority=lambda _: forks(0))
    client.run("keep", drain=True)


def call(client: TaskClient) -> None:
    client.call(1)


def call_in_a_loop(client: TaskClient) -> None:
    async def main() -> None:
        client.call(1)

    asyncio.run(main())


def values() -> Iterator[int]:
    yield forks()
    used()


FUNCTIONS = (forks, generator, generator_at_its_end, callback, wrapped, async_callback)
COROUTINES = (
    coroutine, between_awaits, then_awaits, deep, gathered, own_task, thread, soon, soon_before_a_task,
    async_generator, async_generator_at_its_end, callback_of_coroutine, marked,
)  # fmt: skip
SOURCES = (
    source, generator_source, generator_source_at_its_end, async_source, async_generator_source,
)  # fmt: skip

#: By the group and the kind: the first task, options of the client, and what to do with it.
KINDS: dict[str, dict[str, tuple[Any, dict[str, Any], Callable[[TaskClient], None]]]] = {
    "functions": {
        **{function.__name__: (function, {}, put) for function in FUNCTIONS},
        "generator_when_closed": (generator_when_closed, {}, put),
        "batch": ({"method": batch, "batch": 1}, {}, put),
        "backoff": (fails_once, {"retries": 1, "backoff": lambda *_: forks(0.001)}, put),
        "json_default": (a_set, {"json_default": forks_instead}, put),
    },
    "coroutines": {
        **{function.__name__: (function, {}, put) for function in COROUTINES},
        "async_generator_when_closed": (async_generator_when_closed, {}, put),
    },
    "sources": {
        **{function.__name__: (function, {}, run) for function in SOURCES},
        "generator_source_when_closed": (generator_source_when_closed, {"retries": 1}, run),
        "interval": ({"method": plain_source, "interval": lambda: forks(0.001)}, {}, run),
        "priority": (plain_source, {}, lambda client: client.run(drain=True, priority=lambda _: forks(0))),
    },
    "outside a run": {
        "put": (used, {"json_default": forks_instead}, put_no_json),
        "put_many": (used, {}, put_many(values)),
        "put_many, group": (used, {}, put_many(group=lambda _: forks("group"))),
        "put_many, id": (used, {}, put_many(id=lambda _: forks("id"))),
        "put_many, priority": (used, {}, put_many(priority=lambda _: forks(0))),
        "submit": (plain_source, {}, submit),
        "call": (forks, {}, call),
        "call of a coroutine": (between_awaits, {}, call),
        "call in a loop": (between_awaits, {}, call_in_a_loop),
    },
    "steps": {
        "generator": (Generates, {}, put),
        "after_consume of a coroutine": (Wraps, {}, put),
        **{hook: (made_step(hook), {}, put) for hook in HOOKS},
    },
    "async steps": {
        "async generator": (GeneratesAsync, {}, put),
        **{hook: (made_step(hook, awaits=True), {}, put) for hook in HOOKS},
        **{f"async {hook}": (made_step(hook, awaits=True, hooks_await=True), {}, put) for hook in HOOKS[1:]},
    },
}


def come_back(
    domain: str, broker: str, kind: tuple[Any, dict[str, Any], Callable[[TaskClient], None]]
) -> str:
    """Have a child come back in each way; return the exit codes, what came through, and how many messages died."""
    task, options, act = kind
    ended, came, dead = [], [], 0
    for how in ("exit", "raise", "return"):
        hows[:] = [how]
        codes.clear()
        kept.clear()
        client = TaskClient(f"{domain}-{how}", broker=broker, **{"retries": 0, "backoff": 0.01, **options})
        with client.register_tasks([task, keep]):
            act(client)
            ended += codes
            came += kept
            dead += sum(len(list(client.dead_letters(task.name))) for task in client.tasks if task.queues)
    return f"{ended} {came} {dead}"


if __name__ == "__main__":
    group, *brokers = sys.argv[1:]
    for number, (name, kind) in enumerate(KINDS[group].items()):
        for broker in brokers:
            os.write(1, f"{name}: {come_back(f'forks-{number}', broker, kind)}\n".encode())
