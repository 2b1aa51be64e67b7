"""What waits, is in flight and died, as a table, as JSON, once or again and again."""

from __future__ import annotations

import json
import signal

import pytest

from tests.integration.shell import Shell

HEAD = ["task", "priority", "waiting", "in", "flight", "dead"]


def test_status_is_a_table_of_tasks_and_levels(any_shell: Shell) -> None:
    any_shell.done("put", "numbers", "1", "2")
    head, *rows = (line.split() for line in any_shell.done("status", "numbers").splitlines()[:4])
    assert (head, rows) == (
        HEAD,
        [["double", "0", "2", "0", "0"], ["1", "0", "0"], ["show", "0", "0", "0", "0"]],
    )


def test_status_is_json_on_request(shell: Shell) -> None:
    shell.done("put", "numbers", "1", "--priority", "1")
    found = json.loads(shell.done("status", "numbers", "--json"))
    assert (found["domain"], found["strays"], found["outage"]) == (shell.domain, {}, None)
    assert [level["waiting"] for level in found["levels"]] == [0, 1, 0]


def test_status_names_queues_that_belong_to_no_task(shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace('"method": double', '"name": "other", "method": double'))
    assert f"{shell.domain}--double.fifo belongs to no task here and holds 1" in shell.done(
        "status", "numbers"
    )


def test_watch_goes_on_with_rates_until_an_interrupt(shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    with shell.terminal("status", "numbers", "--watch", "--every", "0.1") as terminal:
        terminal.wait_for("empty in")
        assert "fewer/s" in terminal.shown
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.shown


def test_watch_is_a_line_of_json_for_each_look_where_it_is_wanted(shell: Shell) -> None:
    with shell.started("status", "numbers", "--watch", "--every", "0.1", "--json") as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [look["domain"] for look in looks] == [shell.domain] * 3


def test_watch_shows_tables_one_below_the_other_where_there_is_no_terminal(shell: Shell) -> None:
    with shell.started("status", "numbers", "--watch", "--every", "0.1") as process:
        assert process.stdout is not None
        heads = [line for line in (process.stdout.readline() for _ in range(8)) if "waiting" in line]
    assert len(heads) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_that_ends_watching_gives_the_cursor_back(number: signal.Signals, shell: Shell) -> None:
    with shell.terminal("status", "numbers", "--watch", "--every", "0.1") as terminal:
        terminal.wait_for("\x1b[?25l")
        terminal.wait_for("double")
        terminal.signal(number)
        assert terminal.end() == 128 + number
        assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


def test_narrow_terminal_keeps_the_tasks(shell: Shell) -> None:
    with shell.terminal("status", "numbers", columns=20) as terminal:
        assert terminal.end() == 0
    assert [line.split() for line in terminal.screen if line] == [
        ["task", "waiting"],
        ["double", "0"],
        ["0"],
        ["show", "0"],
    ]


def test_interval_of_no_time_is_not_understood(shell: Shell) -> None:
    assert "Invalid value for '--every'" in shell.refused(
        "status", "numbers", "--watch", "--every", "0", code=2
    )
