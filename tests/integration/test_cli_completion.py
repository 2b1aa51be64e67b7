"""The shell is offered the names of targets and tasks at a Tab, and no file is imported for that."""

from __future__ import annotations

import os
import re

import pytest

from tests.integration.shell import Shell

#: A pipeline of two steps, in a file that leaves a note when it is imported.
MORE = """
from pathlib import Path
from sqspipes import Pipeline, Step

Path(__file__).with_name("imported").touch()

class First(Step):
    def consume(self, value):
        return value

def second(value):
    return value

class More(Pipeline):
    name = "more"
    steps = [First, second]
"""


def names(shell: Shell, *words: str, of: str = "bash") -> list[str]:
    """Return what a shell is offered at a Tab at the end of the last word; nothing may be said beside."""
    begun = {"COMP_WORDS": " ".join(["sqspipes", *words])}
    begun["COMP_CWORD"] = words[-1] if of == "fish" else str(len(words))
    ended = shell.run(_SQSPIPES_COMPLETE=f"{of}_complete", **begun)
    assert (ended.returncode, ended.stderr) == (0, "")
    return [word for word in re.split(r"[,\n]", ended.stdout) if word not in ("", "plain", "_")]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_targets_are_offered_in(name: str, shell: Shell) -> None:
    shell.write("below/more_pipelines.py", MORE)
    assert names(shell, "run", "", of=name) == ["more", "numbers"]


@pytest.mark.parametrize(
    "command",
    ["run", "put", "push", "results", "status", "pause", "resume", "stop", "dead", "purge", "delete"],
)
def test_every_command_with_a_target_completes_it(command: str, shell: Shell) -> None:
    shell.write("below/more_pipelines.py", MORE)
    assert names(shell, command, "nu") == ["numbers"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("run", "numbers", ""), ["double", "show"]),
        (("run", "numbers", "double", ""), ["show"]),
        (("run", "numbers", "s"), ["show"]),
        (("run", "pipelines:numbers", ""), ["double", "show"]),
        (("run", "more", ""), ["First", "second"]),
        (("run", "below.more_pipelines:More", ""), ["First", "second"]),
        (("run", "nothing", ""), []),
        (("pause", "numbers", ""), ["double", "show"]),
        (("resume", "numbers", "double", ""), ["show"]),
        (("dead", "numbers", "d"), ["double"]),
        (("put", "numbers", "--task", ""), ["double", "show"]),
        (("put", "numbers", ""), []),
    ],
)
def test_tasks_of_the_target_are_offered(words: tuple[str, ...], found: list[str], shell: Shell) -> None:
    shell.write("below/more_pipelines.py", MORE)
    assert names(shell, *words) == found


def test_no_file_is_imported(shell: Shell) -> None:
    shell.write("more_pipelines.py", MORE)
    assert names(shell, "run", "more", "") == ["First", "second"]
    assert not (shell.folder / "imported").exists()


def test_working_dir_of_the_line_is_looked_into(shell: Shell) -> None:
    shell.write("below/more_pipelines.py", MORE)
    assert names(shell, "-W", "below", "run", "") == ["more"]
    assert names(shell, "run", "-W", "below", "") == ["more"]
    assert names(shell, "-W", "nowhere", "status", "x") == []


def test_files_that_cannot_be_read_offer_nothing_and_the_others_do(shell: Shell) -> None:
    shell.write("torn_pipelines.py", "def half(:\n")
    shell.write("deep_pipelines.py", "x = " + "(" * 5_000 + ")" * 5_000)
    shell.write("odd_pipelines.py", 'import re\nre.compile("\\d")\n')  # of which Python warns
    (shell.folder / "latin_pipelines.py").write_bytes(b"name = '\xe9'\n")
    (shell.folder / "null_pipelines.py").write_bytes(b"x = 1\0\n")
    (shell.folder / "gone_pipelines.py").symlink_to("nowhere.py")
    os.mkfifo(shell.folder / "endless_pipelines.py")
    assert names(shell, "run", "") == ["numbers"]


def test_folder_without_pipelines_offers_nothing(shell: Shell) -> None:
    (shell.folder / "pipelines.py").unlink()
    assert names(shell, "run", "") == []
    assert names(shell, "run", "numbers", "") == []
