"""Tracebacks of tasks, in letters and in the log, begin in the user's function."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sqspipes import Step
from sqspipes.engine.loop import EngineLoop
from sqspipes.support import tracebacks
from tests.integration.shell import Shell
from tests.integration.support import piped

MEMORY = {"broker": "memory://"}


def inner(value: int) -> None:
    raise ValueError("no")


def broken(value: int) -> None:
    try:
        inner(value)
    except ValueError as error:
        raise KeyError("outer") from error


async def broken_async(value: int) -> None:
    inner(value)


def around(call_next: Any, message: Any) -> Any:
    return call_next()


class Broken(Step):
    def consume(self, value: int) -> None:
        inner(value)


@pytest.mark.parametrize(
    ("task", "functions"),
    [
        (broken, ["broken", "inner", "broken"]),
        (broken_async, ["broken_async", "inner"]),
        (Broken, ["consume", "inner"]),
        ({"method": broken, "around": around}, ["around", "broken", "inner", "broken"]),
    ],
    ids=["function", "async", "step", "around"],
)
def test_letter_and_log_have_the_frames_of_the_user(
    domain: str, task: Any, functions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with piped(domain, MEMORY, task, retries=0) as client:
        client.put(1)
        client.run(drain=True)
        (letter,) = client.dead_letters()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_text is not None
    for text in (letter.traceback, record.exc_text):
        named = [line.rpartition(" in ")[2] for line in text.splitlines() if ", line " in line]
        assert sorted(named) == sorted(functions), text


def test_debugging_shows_all_frames(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQSPIPES_DEBUG", "1")
    with piped(domain, MEMORY, broken, retries=0) as client:
        client.put(1)
        client.run(drain=True)
        (letter,) = client.dead_letters()
    assert "in broken" in letter.traceback
    assert "perform.py" in letter.traceback


def test_command_line_shows_all_frames_with_debug(shell: Shell) -> None:
    shell.write(
        "broken_pipelines.py",
        "from sqspipes import TaskClient\n"
        "def broken(value):\n    raise ValueError('no')\n"
        "mourning = TaskClient('broken', retries=0).register_tasks([broken])\n",
    )
    for options, shows in ([], False), (["--debug"], True):
        shell.done("put", "mourning", "1")
        log = shell.run("run", "mourning", "--drain", *options).stderr
        assert "in broken" in log
        assert ("perform.py" in log) is shows


def test_error_that_met_no_function_of_a_user_keeps_its_frames() -> None:
    loop = EngineLoop()
    loop.close()
    with pytest.raises(ValueError, match="closed") as met:  # in the standard library, called by the package
        loop.turn(0.0)
    text = tracebacks.formatted(met.value)
    assert "loop.py" in text
    assert "selectors.py" in text
