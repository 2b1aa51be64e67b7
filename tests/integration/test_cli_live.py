"""The live view shows several processes as one, and the census of the demo; what they print stands above."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from sqspipes.demo import census
from tests.conftest import AWS
from tests.integration.shell import Shell, screen_of
from tests.servers import Proxy, error

#: A task of which each of two processes has a call before any call ends; it speaks in three ways.
PAIR = """
import logging, os, pathlib, threading
from sqspipes import TaskClient

here = pathlib.Path(__file__).parent

def meet(value):
    (here / f"{{os.getpid()}}.met").touch()
    while len(list(here.glob("*.met"))) < 2:
        threading.Event().wait(0.02)
    if value < 0:
        raise ValueError(value)
    logging.getLogger("mine").info("met %s in %s.", value, os.getpid())
    print("printed", value, flush=True)
    os.system(f"echo from below {{value}}")

pair = TaskClient({domain!r}, lease=5.0, retries=0).register_tasks([meet])
"""


@pytest.fixture
def pair(shell: Shell) -> Shell:
    """A folder with a pipe of one task, which two processes run."""
    shell.write("pipelines.py", PAIR.format(domain=shell.domain))
    return shell


def put(shell: Shell, *values: int) -> None:
    """Put values into the pipe."""
    shell.done("put", "pair", *map(str, values))


def test_several_processes_are_shown_with_their_sums(pair: Shell) -> None:
    put(pair, *range(20), -1, -2)
    with pair.terminal("run", "pair", "--processes", "2") as terminal:
        terminal.wait_for_row("meet", "0", "0", "20")
        assert len(set(re.findall(r"met \d+ in (\d+)", terminal.shown))) == 2
        terminal.type("\x03")
        assert terminal.end() == 130
        (row, *_) = terminal.rows
    assert (row[:4], row[5:7]) == (["meet", "0", "0", "20"], ["2", "2"])


def test_counts_are_right_at_the_end_of_a_drain(pair: Shell) -> None:
    put(pair, *range(20), -1)
    with pair.terminal("run", "pair", "--processes", "2", "--drain") as terminal:
        assert terminal.end() == 3
        (row, *_) = terminal.rows
    assert (row[:4], row[5:7]) == (["meet", "0", "0", "20"], ["1", "1"])


def test_what_processes_say_stands_above_the_view_in_whole_lines(pair: Shell) -> None:
    put(pair, *range(20))
    with pair.terminal("run", "pair", "--processes", "2", "--drain") as terminal:
        assert terminal.end() == 0
        screen = terminal.screen
    *above, _head, _row = [line for line in screen if line]
    for value in range(20):
        assert above.count(f"printed {value}") == 1
        assert above.count(f"from below {value}") == 1
        assert len([line for line in above if re.fullmatch(rf".* INFO    met {value} in \d+\.", line)]) == 1
    assert [line for line in above if line.startswith(("task ", "meet "))] == []
    assert above[-1].endswith(" drained, 20 calls done, 0 failed, 0 dead letters")


def test_killed_process_neither_ends_nor_resets_the_view(pair: Shell) -> None:
    put(pair, *range(20))
    with pair.terminal("run", "pair", "--processes", "2", "-l", "info") as terminal:
        terminal.wait_for_row("meet", "0", "0", "20")
        (killed, *_) = re.findall(r"met \d+ in (\d+)", terminal.shown)
        os.kill(int(killed), signal.SIGKILL)
        terminal.wait_for("died (signal 9), restarting it")
        put(pair, *range(20, 30))
        terminal.wait_for_row("meet", "0", "0", "30")
        terminal.type("\x03")
        assert terminal.end() == 130
        assert terminal.rows[0][:4] == ["meet", "0", "0", "30"]


def test_error_that_ends_several_processes_is_said_below_the_view(pair: Shell) -> None:
    text = (pair.folder / "pipelines.py").read_text()
    pair.write("pipelines.py", text.replace("retries=0", "on_error='raise'"))
    put(pair, *range(20), -7)
    with pair.terminal("run", "pair", "--processes", "2") as terminal:
        assert terminal.end() == 1
        *_, last = filter(None, terminal.screen)
    assert re.fullmatch(r"Error: process [12]: ValueError: -7", last)


def test_outage_that_a_process_sees_is_shown(
    pair: Shell, proxy: Proxy, domain: str, environment: dict[str, str]
) -> None:
    account = {"AWS_ACCESS_KEY_ID": AWS["aws_key"], "AWS_SECRET_ACCESS_KEY": AWS["aws_secret"]}
    there = {"AWS_REGION": AWS["aws_region"], "AWS_ENDPOINT_URL_SQS": proxy.url, "SQSPIPES_BROKER": "sqs://"}
    proxy.always("ReceiveMessage", error(503, "ServiceUnavailable", "no room at the inn"))
    words = ("run", "pair", "--processes", "2", "-l", "error")
    with pair.terminal(*words, **account, **there) as terminal:
        terminal.wait_for("Trouble with the broker: ")
        terminal.type("\x03")
        assert terminal.end() == 130


def test_no_view_is_drawn_where_the_log_of_processes_goes_elsewhere(pair: Shell) -> None:
    put(pair, *range(20))
    words = ("run", "pair", "--processes", "2", "--drain", "--log-format", "json")
    with pair.terminal(*words) as terminal:
        assert terminal.end() == 0
    assert "in flight" not in terminal.shown
    assert [json.loads(line) for line in screen_of(terminal.shown) if line.startswith("{")] != []


# The demo


def test_demo_on_a_terminal_shows_each_task_live(shell: Shell) -> None:
    files = str(len(census.source_files(["json", "email"])))
    with shell.terminal("demo", "json", "email") as terminal:
        terminal.wait_for("in flight")
        assert terminal.end() == 0
        screen = terminal.screen
    (head,) = [place for place, line in enumerate(screen) if line.startswith("task ")]
    rows = [line.split()[:4] for line in screen[head + 1 : head + 4]]
    assert rows == [[task, "0", "0", files] for task in ("parse", "count", "add_up")]
    above, below = "\n".join(screen[:head]), "\n".join(screen[head:])
    assert re.search(r"^  kill -9 of worker \d+; worker \d+ takes over$", above, re.MULTILINE)
    assert "its totals are the same" in below
    assert "] " not in above + below  # the line of progress is for other places


def test_demo_needs_nothing_of_the_command_line_off_a_terminal() -> None:
    code = """
import sys
from sqspipes import demo
demo.main(["json"])
print(sorted({"click", "rich", "sqspipes.cli"} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("\n[]\n")
