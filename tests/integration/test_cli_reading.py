"""The command line shows the package itself: the demonstration, the guide, its help and its completion."""

from __future__ import annotations

import re

import pytest

from tests.integration.shell import Shell
from tests.integration.support import ROOT

COMMANDS = (
    "list", "run", "put", "results", "status", "pause", "resume", "stop", "dead", "purge", "delete", "demo", "guide",
)  # fmt: skip


def named_in(text: str) -> set[str]:
    """Return the long options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_guide_is_the_page_of_the_docs(shell: Shell) -> None:
    assert shell.done("guide") == (ROOT / "docs" / "guide.rst").read_text(encoding="utf-8")


def test_demo_counts_the_packages_that_are_named(shell: Shell) -> None:
    said = shell.done("demo", "json")
    assert "its totals are the same" in said
    assert "package" in said


def test_demo_of_nothing_is_an_error(shell: Shell) -> None:
    assert "has no package 'no_such_package'" in shell.refused("demo", "no_such_package")


def test_help_has_every_command_in_a_line_that_is_not_cut(shell: Shell) -> None:
    _, _, listed = shell.done("--help").partition("Commands:\n")
    lines = listed.partition("\n\n")[0].splitlines()
    assert tuple(line.split()[0] for line in lines) == COMMANDS
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(command: str, shell: Shell) -> None:
    for option in ("-h", "--help"):
        assert shell.done(command, option).startswith(f"Usage: sqspipes {command} ")


def test_page_of_the_docs_has_every_command_and_option(shell: Shell) -> None:
    page = (ROOT / "docs" / "commandline.rst").read_text(encoding="utf-8")
    options = {option for command in COMMANDS for option in named_in(shell.done(command, "--help"))}
    assert [name for name in (*COMMANDS, "push") if f"sqspipes {name}" not in page] == []
    assert len(options) > 20
    assert options - named_in(page) == set()


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_is_there_for(name: str, shell: Shell) -> None:
    ended = shell.run(_SQSPIPES_COMPLETE=f"{name}_source")
    assert (ended.returncode, "_SQSPIPES_COMPLETE" in ended.stdout) == (0, True)


def test_version_is_that_of_the_package(shell: Shell) -> None:
    assert shell.done("--version").startswith("sqspipes ")
