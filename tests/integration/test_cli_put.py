"""Values go in as JSON, in the order given, from the command line or line by line."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.integration.shell import Shell
from tests.integration.support import until


@pytest.mark.parametrize("command", ["put", "push"])
def test_values_are_put_in_order_and_their_ids_printed(command: str, shell: Shell) -> None:
    ids = shell.done(command, "numbers", "1", '"two"', '{"three": 3}', "-4.5", "null").split()
    assert (len(set(ids)), shell.held()) == (5, [5, 0, 0, 0])


def test_lines_of_standard_input_are_put_and_counted(any_shell: Shell) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(25)) + "\n"
    ended = any_shell.run("put", "numbers", "-", input=lines)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("25 values put in ")
    until(lambda: any_shell.held()[0] == 25)


def test_line_is_put_before_the_input_ends(shell: Shell) -> None:
    with shell.started("put", "numbers", "-") as process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        until(lambda: shell.held()[0] == 1)
        assert process.poll() is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "hello",
            """hello (Expecting value: line 1 column 1 (char 0)); allowed is '"hello"', in single quotes""",
        ),
        ("{url:", """{url: (Expecting property name enclosed in double quotes: """),
        (
            "{url: x}",
            """allowed is '{"key": "value"}', in single quotes that keep JSON's own from the shell""",
        ),
        ("", """allowed is '""', in single quotes"""),
    ],
)
def test_value_that_lost_its_quotes_gets_an_error_that_shows_them(
    value: str, said: str, any_shell: Shell
) -> None:
    error = any_shell.refused("put", "numbers", "1", value)
    assert error.startswith("Error: value 2 is not JSON: ")
    assert said in error
    assert any_shell.held() == [0, 0, 0, 0]


def test_line_that_is_not_json_is_named_and_those_before_it_are_put(any_shell: Shell) -> None:
    error = any_shell.refused("put", "numbers", "-", input="1\n\n2\nthree\n4\n")
    assert error.startswith("Error: line 4 was not put, 2 values before it: it is not JSON: three (")
    until(lambda: any_shell.held()[0] == 2)


def test_object_that_has_a_key_twice_is_refused(shell: Shell) -> None:
    twice = '{"rows": [{"a": 1, "b": 2, "a": 3}]}'
    error = shell.refused("put", "numbers", "1", twice)
    assert error.startswith(f'Error: value 2 is not JSON: {twice} (an object has the key "a" twice)')
    error = shell.refused("put", "numbers", "-", input=f"1\n{twice}\n")
    assert "line 2 was not put, 1 value before it" in error
    assert 'an object has the key "a" twice' in error
    until(lambda: shell.held()[0] == 1)


def test_fields_give_group_and_id(shell: Shell) -> None:
    value = json.dumps({"order": 7, "customer": "ada"})
    words = ("put", "numbers", value, "--id-by", "order", "--group-by", "customer")
    assert [shell.done(*words) for _ in range(2)] == ["7\n", "7\n"]
    assert shell.held()[0] == 1


def test_fields_of_lines_give_group_and_id(shell: Shell) -> None:
    lines = '{"order": 7, "customer": "ada"}\n' * 2 + '{"order": 8, "customer": "ada"}\n'
    shell.done("put", "numbers", "-", "--id-by", "order", "--group-by", "customer", input=lines)
    assert shell.held()[0] == 2


def test_group_is_kept_with_a_dead_letter(shell: Shell) -> None:
    shell.done("put", "numbers", '"bad"', "--group", "of mine")
    assert shell.run("run", "numbers", "--drain").returncode == 3
    with shell.client() as client:
        assert [letter.group for letter in client.dead_letters()] == ["of mine"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"a": 1, "b": 2}', "--id-by is 'order': a value has no such field, it has a, b"),
        ("[1]", "--id-by is 'order': [1] has no fields, allowed are objects"),
        ('{"order": []}', "id is []: allowed is a text of 1 to"),
    ],
)
def test_field_that_is_not_there_is_an_error(value: str, said: str, shell: Shell) -> None:
    assert shell.refused("put", "numbers", value, "--id-by", "order").startswith(f"Error: {said}")


def test_task_and_priority_say_where(shell: Shell) -> None:
    shell.done("put", "numbers", "1", "--priority", "1")
    shell.done("put", "numbers", "2", "--task", "show")
    assert shell.held() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("1", "--priority", "2"), 1, "task 'double': priority is 2: allowed is a whole number from 0 to 1"),
        (("1", "--task", "shaw"), 1, "task 'shaw' is not registered (did you mean 'show'?)"),
        (("1", "--group", "a", "--group-by", "b"), 2, "--group and --group-by exclude each other"),
        (("1", "-"), 2, "- stands alone"),
        (("1", "--grup", "a"), 2, "No such option"),
        ((), 2, "Missing argument"),
    ],
)
def test_wish_that_cannot_be_granted_is_an_error(
    words: tuple[str, ...], code: int, said: str, shell: Shell
) -> None:
    assert shell.refused("put", "numbers", *words, code=code).startswith(f"Error: {said}")
    assert shell.held() == [0, 0, 0, 0]


def test_queue_that_is_missing_is_named_where_none_is_made(any_shell: Shell) -> None:
    text = (any_shell.folder / "pipelines.py").read_text()
    any_shell.write("pipelines.py", text.replace("lease=5.0", "lease=5.0, create=False"))
    for words in (
        ("put", "numbers", "1"),
        ("put", "numbers", "-"),
        ("status", "numbers"),
        ("run", "numbers"),
        ("dead", "numbers", "double"),
    ):
        error = any_shell.refused(*words, input="1\n").splitlines()[-1]
        assert f"queue {any_shell.domain}--double" in error
        assert "does not exist" in error


def test_terminal_shows_the_progress_of_a_pipe(shell: Shell) -> None:
    reading, writing = os.pipe()
    with (
        open(writing, "wb", buffering=0) as lines,
        shell.terminal("put", "numbers", "-", stdin=reading) as terminal,
    ):
        os.close(reading)
        lines.write(b"1\n2\n")
        terminal.wait_for("values, ")
        lines.close()
        assert terminal.end() == 0
        assert "2 values put in " in terminal.shown


def test_interrupt_ends_putting(shell: Shell) -> None:
    reading, writing = os.pipe()
    with (
        open(writing, "wb", buffering=0) as lines,
        shell.terminal("put", "numbers", "-", stdin=reading) as terminal,
    ):
        os.close(reading)
        lines.write(b"1\n")
        until(lambda: shell.held()[0] == 1)
        terminal.type("\x03")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.shown


def test_reader_that_leaves_is_no_error_with_a_traceback(shell: Shell) -> None:
    with shell.started("guide", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
