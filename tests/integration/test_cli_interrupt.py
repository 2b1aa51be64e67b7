"""Ctrl-C on a terminal, wherever the command line waits for somebody: nothing is changed, nothing more is said."""

from __future__ import annotations

import signal

import pytest

from tests.integration.shell import Shell
from tests.integration.support import PATIENCE, run_until, until

#: What the terminal shows from Ctrl-C on: the keys, and the end of the line.
INTERRUPTED = "^C\r\n"


@pytest.fixture
def full(any_shell: Shell) -> Shell:
    """A pipe with a message that waits and a dead letter, on each broker."""
    buries = {"method": bury, "name": "double", "priorities": 2, "retries": 0}
    with any_shell.client() as client:
        client.register_tasks([buries, {"name": "show", "priorities": 1}])
        client.put("bad")
        run_until(client, "double", dead=1)
        client.put(1)
    until(lambda: any_shell.held() == [1, 0, 0, 1])
    return any_shell


def bury(value: str) -> None:
    """Make a dead letter of a value."""
    raise ValueError(value)


@pytest.mark.parametrize(
    ("words", "question"),
    [
        (("dead", "numbers", "double", "redrive", "--all"), "[y/N] "),
        (("dead", "numbers", "double", "discard", "--all"), "[y/N] "),
        (("purge", "numbers"), "type the domain, {}: "),
        (("delete", "numbers"), "type the domain, {}: "),
    ],
)
def test_interrupted_question_changes_nothing(words: tuple[str, ...], question: str, full: Shell) -> None:
    asked = question.format(full.domain)
    with full.terminal(*words) as terminal:
        terminal.wait_for(asked)
        terminal.type("y")
        terminal.wait_for(asked + "y")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert terminal.shown.partition(asked)[2] == "y" + INTERRUPTED
    assert full.held() == [1, 0, 0, 1]
    assert len(full.done("dead", "numbers", "double").splitlines()) == 2


@pytest.mark.parametrize("keys", ["", "12", '{"half": '])
def test_interrupted_line_is_not_put(keys: str, any_shell: Shell) -> None:
    with any_shell.terminal("put", "numbers", "-") as terminal:
        terminal.wait_for("Ctrl-D ends.\r\n")
        terminal.type(keys)
        terminal.wait_for("ends.\r\n" + keys)
        terminal.type("\x03")
        assert terminal.end() == 130
    assert terminal.shown.partition("ends.\r\n")[2] == keys + INTERRUPTED
    assert any_shell.held() == [0, 0, 0, 0]


def test_lines_before_the_interrupt_are_put(any_shell: Shell) -> None:
    with any_shell.terminal("put", "numbers", "-") as terminal:
        terminal.wait_for("Ctrl-D ends.\r\n")
        terminal.type("1\n2\n")
        until(lambda: any_shell.held()[0] == 2)
        terminal.type("3\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert any_shell.held() == [2, 0, 0, 0]


def test_lines_that_are_typed_are_put_and_counted_at_their_end(any_shell: Shell) -> None:
    with any_shell.terminal("put", "numbers", "-") as terminal:
        terminal.wait_for("One JSON value on each line; Ctrl-D ends.\r\n")
        terminal.type("1\n2\n\x04")
        assert terminal.end() == 0
    assert "2 values put in " in terminal.shown
    until(lambda: any_shell.held()[0] == 2)


def test_nothing_is_said_where_there_is_no_terminal(shell: Shell) -> None:
    with shell.started("status", "numbers", "--watch", "--every", "0.1", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == ""
