"""Dead letters are listed, shown, sent back and deleted; what changes them asks first."""

from __future__ import annotations

import json

import pytest

from tests.integration.shell import Shell
from tests.integration.support import until
from tests.integration.test_cli_run import drained

#: The dead letters of a test: value, error, id.
BAD, WORSE = '{"id": "bad-1", "value": "bad"}', '{"id": "worse-1", "value": "worse"}'


@pytest.fixture
def mourning(any_shell: Shell) -> Shell:
    """A pipe with two dead letters, on each broker."""
    text = (any_shell.folder / "pipelines.py").read_text()
    any_shell.write(
        "pipelines.py", text.replace("def double(value):", "def double(value):\n    value = value['value']")
    )
    any_shell.done("put", "numbers", BAD, WORSE, "--id-by", "id")
    assert any_shell.run("run", "numbers", *drained(any_shell)).returncode == 3
    until(lambda: any_shell.held()[-1] == 2)
    return any_shell


@pytest.fixture
def two(shell: Shell) -> Shell:
    """A pipe on SQLite with two dead letters."""
    shell.done("put", "numbers", '"bad"', '"worse"')
    assert shell.run("run", "numbers", "--drain").returncode == 3
    return shell


def ids(shell: Shell) -> list[str]:
    """Return the ids that are listed."""
    return [line.split()[0] for line in shell.done("dead", "numbers", "double").splitlines()[1:]]


def test_letters_are_listed_with_their_errors(mourning: Shell) -> None:
    head, *rows = mourning.done("dead", "numbers", "double").splitlines()
    assert head.split() == ["id", "died", "attempts", "error"]
    assert sorted(row.split()[0] for row in rows) == ["bad-1", "worse-1"]
    assert sorted(row.split("  ")[-1] for row in rows) == ["KeyError: 'worse'", "ValueError: bad"]


def test_letter_is_shown_with_value_and_traceback(mourning: Shell) -> None:
    shown = mourning.done("dead", "numbers", "double", "show", "bad-1")
    assert "error      ValueError: bad" in shown
    assert '"value": "bad"' in shown
    assert "Traceback (most recent call last)" in shown


def test_letters_of_an_error_are_sent_back(mourning: Shell) -> None:
    said = mourning.done("dead", "numbers", "double", "redrive", "--error", "KeyError", "--yes")
    assert said == "1 dead letter sent to double again\n"
    until(lambda: mourning.held() == [1, 0, 0, 1])


def test_letter_is_deleted(mourning: Shell) -> None:
    said = mourning.done("dead", "numbers", "double", "discard", "bad-1", "--yes")
    assert said == "1 dead letter of double deleted\n"
    until(lambda: ids(mourning) == ["worse-1"])


def test_letters_are_json_on_request(two: Shell) -> None:
    letters = [
        json.loads(line) for line in two.done("dead", "numbers", "double", "list", "--json").splitlines()
    ]
    assert [(letter["value"], letter["error_type"]) for letter in letters] == [
        ("bad", "ValueError"),
        ("worse", "KeyError"),
    ]


def test_beginning_of_an_id_names_a_letter(two: Shell) -> None:
    first, _ = ids(two)
    assert f"id         {first}" in two.done("dead", "numbers", "double", "show", first[:12])


def test_all_letters_are_sent_back(two: Shell) -> None:
    two.done("dead", "numbers", "double", "redrive", "--all", "--yes")
    assert two.held() == [2, 0, 0, 0]


@pytest.mark.parametrize("chosen", [["--all"], ["--error", "ValueError"]])
def test_letters_of_many_groups_that_share_an_id_are_all_sent_back(chosen: list[str], shell: Shell) -> None:
    with shell.client() as client:
        for number in range(12):
            client.put("bad", id="same", group=f"g{number}")
    assert shell.run("run", "numbers", "--drain").returncode == 3
    said = shell.done("dead", "numbers", "double", "redrive", *chosen, "--yes")
    assert said == "12 dead letters sent to double again\n"


def test_letters_that_share_an_id_with_others_are_deleted_alone(shell: Shell) -> None:
    with shell.client() as client:
        for group, value in (("ann", "bad"), ("bob", "worse"), ("eve", "bad")):
            client.put(value, id="same", group=group)
    assert shell.run("run", "numbers", "--drain").returncode == 3

    def left() -> list[str]:
        lines = shell.done("dead", "numbers", "double", "list", "--json").splitlines()
        return sorted(json.loads(line)["group"] for line in lines)

    said = shell.done("dead", "numbers", "double", "discard", "--error", "KeyError", "--yes")
    assert said == "1 dead letter of double deleted\n"
    assert left() == ["ann", "eve"]
    said = shell.done("dead", "numbers", "double", "discard", "same", "--yes")
    assert said == "1 dead letter of double deleted\n"
    assert len(left()) == 1


def test_where_there_are_none_nothing_is_asked(shell: Shell) -> None:
    assert shell.done("dead", "numbers", "show") == ""
    assert shell.done("dead", "numbers", "show", "redrive", "--all") == "0 dead letters sent to show again\n"
    assert shell.done("dead", "numbers", "show", "discard", "--all") == "0 dead letters of show deleted\n"


@pytest.mark.parametrize(
    "words", [["redrive"], ["redrive", "--all", "--error", "KeyError"], ["discard", "x", "--all"]]
)
def test_which_letters_must_be_said_in_one_way(words: list[str], two: Shell) -> None:
    said = two.refused("dead", "numbers", "double", *words, "--yes", code=2)
    assert said == "Error: say which: their ids, or --all, or --error TYPE"


def test_letter_that_is_not_there_is_an_error_and_the_others_stay(two: Shell) -> None:
    first, _ = ids(two)
    for words in (["show", "nobody"], ["discard", first, "nobody", "--yes"]):
        said = two.refused("dead", "numbers", "double", *words)
        assert said == "Error: id 'nobody' is not found: there are 2 dead letters of task 'double'"
    assert two.held()[-1] == 2


def test_beginning_that_two_ids_share_is_an_error(shell: Shell) -> None:
    shell.done("put", "numbers", '"bad"', "--group", "a")
    with shell.client() as client:
        client.put("worse", id="same-1")
        client.put("worse", id="same-2")
    shell.run("run", "numbers", "--drain")
    said = shell.refused("dead", "numbers", "double", "show", "same-")
    assert said == "Error: id 'same-' begins the ids of 2 dead letters of task 'double': write more of it"


@pytest.mark.parametrize(("command", "left"), [("redrive", [2, 0, 0, 0]), ("discard", [0, 0, 0, 0])])
def test_yes_on_the_terminal_does_it(command: str, left: list[int], two: Shell) -> None:
    with two.terminal("dead", "numbers", "double", command, "--all") as terminal:
        terminal.wait_for("[y/N] ")
        assert "2 dead letters" in terminal.shown
        terminal.type("y\n")
        assert terminal.end() == 0
    assert two.held() == left


@pytest.mark.parametrize("command", ["redrive", "discard"])
@pytest.mark.parametrize(("keys", "code"), [("n\n", 1), ("\n", 1), ("\x04", 1), ("\x03", 130)])
def test_any_other_answer_changes_nothing(command: str, keys: str, code: int, two: Shell) -> None:
    with two.terminal("dead", "numbers", "double", command, "--all") as terminal:
        terminal.wait_for("[y/N] ")
        terminal.type(keys)
        assert (terminal.end(), "Traceback" in terminal.shown) == (code, False)
    assert two.held() == [0, 0, 0, 2]


def test_without_a_terminal_the_answer_must_be_given(two: Shell) -> None:
    said = two.refused("dead", "numbers", "double", "discard", "--all", input="y\n", code=2)
    assert said == "Error: standard input is no terminal, nobody can be asked: give --yes"
    assert two.held()[-1] == 2


def test_text_that_the_output_cannot_encode_is_escaped(shell: Shell) -> None:
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("raise (", "raise OSError('Plzeň') or ("))
    shell.done("put", "numbers", '"bad"')
    shell.run("run", "numbers", "--drain")
    (id,) = ids(shell)
    ended = shell.run("dead", "numbers", "double", "show", id, PYTHONIOENCODING="cp1252")
    assert (ended.returncode, "Plze\\u0148" in ended.stdout) == (0, True)


def test_terminal_is_not_commanded_by_what_others_wrote(shell: Shell) -> None:
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("ValueError if", "(lambda v: ValueError('\\x1b[2J')) if"))
    shell.done("put", "numbers", '"bad"')
    shell.run("run", "numbers", "--drain")
    (id,) = ids(shell)
    shown = shell.done("dead", "numbers", "double", "show", id) + shell.done("dead", "numbers", "double")
    assert ("\x1b" in shown, shown.count("ValueError: \\x1b[2J")) == (False, 3)
