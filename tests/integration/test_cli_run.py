"""Tasks run until they are told to stop or all is through, with a live view on a terminal and lines elsewhere."""

from __future__ import annotations

import json
import re
import signal
from typing import IO

import pytest

from tests.integration.shell import Shell

#: What the log says when a run has begun.
RUNS = " runs on "

#: A source that counts the processes it sees, and a task that waits to be told.
SLOW = """
import logging, os, sys
from sqspipes import TaskClient

def work(value):
    logging.getLogger("mine").info("working on %s", value)
    return os.getpid()

def wait(value):
    print("waiting", value, flush=True)
    sys.stdin.readline()

busy = TaskClient({domain!r}, lease=5.0).register_tasks([work])
waiting = TaskClient({domain!r}, lease=5.0).register_tasks([wait])
"""


def drained(shell: Shell) -> list[str]:
    """Return the options with which a run drains; SQS's own 60 seconds are too long for a test."""
    return ["--drain", "--drain-seconds", "1"] if shell.arguments["broker"] == "sqs://" else ["--drain"]


def read_until(stream: IO[str] | None, text: str) -> str:
    """Read lines until one has a text; return it."""
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not said")


def test_drained_run_ends_with_0_and_its_log_on_standard_error(any_shell: Shell) -> None:
    any_shell.done("put", "numbers", "1", "2", "3")
    ended = any_shell.run("run", "numbers", *drained(any_shell))
    assert (ended.returncode, ended.stdout.split()) == (0, ["shown", "2", "shown", "4", "shown", "6"])
    begin, *_, end = ended.stderr.splitlines()
    assert f"INFO    {any_shell.domain} runs on " in begin
    assert end.endswith("drained, 6 calls done, 0 failed, 0 dead letters")


def test_drained_run_that_made_a_dead_letter_ends_with_3(any_shell: Shell) -> None:
    any_shell.done("put", "numbers", "1", '"bad"')
    ended = any_shell.run("run", "numbers", *drained(any_shell))
    assert (ended.returncode, ended.stdout) == (3, "shown 2\n")


def test_only_the_named_tasks_and_levels_run(shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    shell.done("put", "numbers", "2", "--priority", "1")
    words = ("run", "numbers", "double", "--drain", "--min-priority", "1")
    assert shell.done(*words) == ""
    assert shell.held() == [1, 0, 1, 0]
    shell.done("run", "numbers", "double", "--drain", "--max-priority", "0")
    assert shell.held() == [0, 0, 2, 0]


@pytest.mark.parametrize("option", ["--workers", "-t", "--threads"])
def test_workers_of_each_task_are_set(option: str, shell: Shell) -> None:
    ended = shell.run("run", "numbers", "--drain", option, "3")
    assert "double (3 workers), show (3 workers)" in ended.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("shaw",), 1, "task 'shaw' is not registered (did you mean 'show'?): there are double, show"),
        (("--workers", "0"), 1, "workers is 0: allowed is a whole number from 1 to 1,000"),
        (("--processes", "99"), 1, "processes is 99: allowed is a whole number from 1 to 64"),
        (("--stop-timeout", "-1"), 1, "stop_timeout is -1.0: allowed is seconds, 0 to 31,536,000"),
        (
            ("--min-priority", "7"),
            1,
            "min_priority is 7 and max_priority None: task 'double' has levels 0 to 1",
        ),
        (("--drain-seconds", "1"), 2, "--drain-seconds goes with --drain"),
        (("--workers", "many"), 2, "Invalid value for '--workers'"),
        (("-l", "loud"), 2, "Invalid value for '-l' / '--log-level'"),
    ],
)
def test_wish_that_cannot_be_granted_is_an_error(
    words: tuple[str, ...], code: int, said: str, shell: Shell
) -> None:
    assert shell.refused("run", "numbers", *words, code=code).startswith(f"Error: {said}")


def test_error_that_ends_a_run_is_one_line_and_its_traceback_is_for_debug(shell: Shell) -> None:
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("retries=0", "on_error='raise'"))
    shell.done("put", "numbers", '"bad"')
    assert shell.refused("run", "numbers") == "Error: ValueError: bad"
    assert 'raise (ValueError if value == "bad"' in shell.run("run", "numbers", "--debug").stderr


def test_log_is_json_on_request(shell: Shell) -> None:
    shell.done("put", "numbers", '"bad"')
    ended = shell.run("run", "numbers", "--drain", "--log-format", "json")
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {"time", "level", "logger", "message", "process"} <= lines[0].keys()
    assert lines[0]["message"].startswith(f"{shell.domain} runs on ")
    assert [line["level"] for line in lines if "traceback" in line] == ["error"]


def test_log_level_leaves_lines_out(shell: Shell) -> None:
    assert shell.run("run", "numbers", "--drain", "-l", "warning").stderr == ""
    shell.done("put", "numbers", "1")
    assert "DEBUG" in shell.run("run", "numbers", "--drain", "-l", "DEBUG").stderr


def test_processes_share_the_work_and_the_log(shell: Shell) -> None:
    shell.write("pipelines.py", SLOW.format(domain=shell.domain))
    shell.done("put", "busy", *map(str, range(20)))
    ended = shell.run("run", "busy", "--processes", "2", "--drain", "--log-format", "json")
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    worked = [line for line in lines if line["logger"] == "mine"]
    assert (ended.returncode, len(worked)) == (0, 20)
    assert lines[0]["process"] not in {line["process"] for line in worked}


def ended_by(number: signal.Signals, shell: Shell) -> int:
    """Start a run and send it a signal; return its exit code, after checking that it ended in good order."""
    with shell.started("run", "numbers") as process:
        assert process.stderr is not None
        read_until(process.stderr, RUNS)
        process.send_signal(number)
        rest = process.stderr.read()
        assert ("Traceback" in rest, "signal, 0 calls done" in rest) == (False, True)
        return process.wait()


def test_interrupt_ends_a_run_with_130(any_shell: Shell) -> None:
    assert ended_by(signal.SIGINT, any_shell) == 130


def test_termination_ends_a_run_with_0(shell: Shell) -> None:
    assert ended_by(signal.SIGTERM, shell) == 0


def test_interrupt_ends_several_processes(shell: Shell) -> None:
    shell.write("pipelines.py", SLOW.format(domain=shell.domain))
    shell.done("put", "busy", "1")
    with shell.started("run", "busy", "--processes", "2") as process:
        read_until(process.stderr, "working on")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_stop_timeout_replaces_the_clients(shell: Shell) -> None:
    shell.write("pipelines.py", SLOW.format(domain=shell.domain))
    shell.done("put", "waiting", "1")
    with shell.started("run", "waiting", "--stop-timeout", "0.1") as process:
        read_until(process.stdout, "waiting 1")
        process.send_signal(signal.SIGTERM)
        read_until(process.stderr, "did not end in time")


# On a terminal


def test_terminal_shows_each_task_live_and_what_is_printed_above(shell: Shell) -> None:
    shell.done("put", "numbers", "1", "2", '"bad"')
    with shell.terminal("run", "numbers") as terminal:
        for text in ("waiting", "in flight", "done/s", "failed", "dead"):
            terminal.wait_for(text)
        terminal.wait_for("shown 4")
        terminal.wait_for("ERROR")
        terminal.type("\x03")
        assert terminal.end() == 130
    last = terminal.shown.rpartition("task ")[2]
    rows = [line.split() for line in plain(last).splitlines()[1:3]]
    assert [row[:7] for row in rows] == [["double", "0", "0", "2", row_rate(rows[0]), "1", "1"],
                                         ["show", "0", "0", "2", row_rate(rows[1]), "0", "0"]]  # fmt: skip
    assert "Traceback (most recent call last)" in terminal.shown  # of the dead letter, in the log
    assert "KeyboardInterrupt" not in terminal.shown


def row_rate(row: list[str]) -> str:
    """Return the calls per second that a row shows, whatever they are."""
    assert re.fullmatch(r"[\d,.]+", row[4])
    return row[4]


def plain(text: str) -> str:
    """Return what a terminal shows without its colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_live_view_fits_the_terminal(columns: int, shell: Shell) -> None:
    with shell.terminal("run", "numbers", "--drain", "-l", "error", columns=columns) as terminal:
        assert terminal.end() == 0
    assert max(len(line) for line in plain(terminal.shown).splitlines()) <= columns


def test_live_view_has_no_colours_where_they_are_unwanted(shell: Shell) -> None:
    shown = []
    for environment in ({}, {"NO_COLOR": "1"}):
        shell.done("put", "numbers", '"bad"')
        with shell.terminal("run", "numbers", "--drain", **environment) as terminal:
            assert terminal.end() == 3
            shown.append(terminal.shown)
    assert ["\x1b[31m" in text for text in shown] == [True, False]


def test_live_view_is_not_drawn_where_the_log_goes_elsewhere(shell: Shell) -> None:
    with shell.terminal("run", "numbers", "--drain", "--log-format", "json") as terminal:
        assert terminal.end() == 0
    assert "in flight" not in terminal.shown
