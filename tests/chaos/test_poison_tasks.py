"""Tasks that misbehave: whatever they raise is a failed attempt, whatever they do to the process the pipe goes on."""

from __future__ import annotations

import asyncio
import builtins
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes import Broker, TaskClient
from tests.chaos.fleet import PROGRAMS, ROOT


class UnprintableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class DeeplyUnprintableError(Exception):
    """Its text cannot be had, and asking for it looks like the end of the process."""

    def __str__(self) -> str:
        raise SystemExit("no text")


class NumberedError(Exception):
    """Its text is no text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class NamelessError(
    Exception, metaclass=type("Nameless", (type,), {"__name__": property(lambda cls: 1 / 0)})
):  # type: ignore[misc]
    """Its class does not tell its name."""


class UntraceableError(Exception):
    """Its traceback cannot be formatted."""

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise RecursionError("no cause")

    @property
    def __notes__(self) -> list[str]:
        raise KeyboardInterrupt


def endless(depth: int = 0) -> int:
    """Use up the stack."""
    return endless(depth + 1) + 1


def caused(depth: int) -> BaseException:
    """Return an error at the end of a long chain of causes."""
    error: BaseException = ValueError("the first")
    for number in range(depth):
        error, error.__cause__ = ValueError(f"after {number}"), error
    return error


def grouped(depth: int) -> BaseException:
    """Return groups of errors, one in the other; on a Python without them a chain of causes."""
    group: Any = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        return caused(depth)
    error: BaseException = ValueError("the innermost")
    for _ in range(depth):
        error = group("one more", [error])
    return error


def circular() -> BaseException:
    """Return an error that is the cause of its cause."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


#: What a task may raise, by name.
RAISED: dict[str, Callable[[], BaseException | int]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": StopIteration,
    "MemoryError": MemoryError,
    "RecursionError": endless,
    "BaseException": lambda: BaseException("bare"),
    "UnprintableError": UnprintableError,
    "DeeplyUnprintableError": DeeplyUnprintableError,
    "NumberedError": NumberedError,
    "NamelessError": NamelessError,
    "UntraceableError": UntraceableError,
    "surrogates": lambda: ValueError("\ud800 \udfff \x00 \x1b[2J %s"),
    "large": lambda: ValueError("x" * 10_000_000),
    "caused": lambda: caused(5_000),
    "circular": circular,
    "grouped": lambda: grouped(3_000),
    "syntax": lambda: SyntaxError("odd", (object(), "1", object(), 7)),  # type: ignore[arg-type]
}


def task(value: str) -> str:
    """Raise what is asked for, return the rest."""
    if value in RAISED:
        error = RAISED[value]()
        assert isinstance(error, BaseException)
        raise error
    return value


def test_whatever_a_task_raises_is_a_failed_attempt_and_then_a_dead_letter(
    chaos: Any, domain: str, broker_name: str, broker: Broker
) -> None:
    client = TaskClient(domain, broker=broker, retries=1, backoff=0.0)
    client.register_tasks([{"method": task, "workers": 3}, {"method": str, "name": "text"}])
    good = [f"good {number}" for number in range(20)]
    values = [*RAISED, *good]
    chaos.random.shuffle(values)
    begun = time.monotonic()
    client.put_many(values)
    with client, client.run(iterate=True, drain=1.0) as results:
        assert sorted(results) == sorted(good)
        letters = {letter.value: letter for letter in client.dead_letters()}
    assert sorted(letters) == sorted(RAISED)
    assert {name: letter.attempts for name, letter in letters.items() if letter.attempts != 2} == {}
    assert not [letter for letter in letters.values() if not letter.error_type or not letter.traceback]
    named = [name for name in RAISED if name.endswith(("Error", "Exit", "Interrupt"))]
    assert {name: letters[name].error_type for name in named} == {name: name for name in named}
    chaos.report(
        scenario="7 poison: errors", broker=broker_name, messages=len(values), faults=len(RAISED),
        lost=len(RAISED) - len(letters), seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


@pytest.mark.parametrize("source", [False, True], ids=["task", "source"])
def test_generator_that_raises_half_way_repeats_nothing(chaos: Any, domain: str, source: bool) -> None:
    calls: Counter[str] = Counter()

    def generate() -> Any:
        calls["generate"] += 1
        for number in range(10):
            if number == calls["generate"] * 2 and calls["generate"] < 5:
                raise SystemExit(number)
            yield number if source else f"part {number}"

    def split(value: Any) -> Any:
        yield from generate()

    client = TaskClient(domain, broker="memory://", retries=8, backoff=0.0)
    first = {"method": generate, "interval": 0.0} if source else {"method": split}
    client.register_tasks([first, {"method": lambda value: value, "name": "last"}])
    with client:
        if not source:
            client.put("whole")
        with client.run(iterate=True, drain=True) as results:
            found = Counter(results)
    if source:  # a source has no input to tell its runs apart by
        assert set(found) == set(range(10))
    else:
        assert found == Counter(f"part {number}" for number in range(10))


@pytest.mark.parametrize("broker_name", ["sqlite"])
def test_pipe_goes_on_when_tasks_start_threads_change_the_directory_and_close_stdout(
    chaos: Any, tmp_path: Any, broker_name: str
) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "rude.py")],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stderr.splitlines()[-1])
    assert said == {"results": list(range(30)), "dead": 0, "reason": "drained", "again": list(range(30, 60))}
    assert sorted(path.name for path in tmp_path.rglob("*.db")) == ["pipe.db"]
    chaos.report(
        scenario="7 poison: rude tasks", broker=broker_name, messages=60, faults=180,
        lost=60 - len(said["results"]) - len(said["again"]), seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip
