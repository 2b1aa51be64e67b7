"""pause, resume and stop reach the processes that run."""

from __future__ import annotations

import json
import subprocess

from tests.integration.shell import Shell
from tests.integration.support import until


def often(shell: Shell) -> Shell:
    """Have the pipe look at the control word often."""
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("lease=5.0", "lease=5.0, control_interval=0.2"))
    return shell


def line(process: subprocess.Popen[str], text: str) -> str:
    """Read the log until a line has a text."""
    assert process.stderr is not None
    return next(line for line in process.stderr if text in line)


def test_paused_task_waits_in_another_process_until_it_is_resumed(any_shell: Shell) -> None:
    shell = often(any_shell)
    shell.done("put", "numbers", "1")
    assert shell.done("pause", "numbers", "show") == (
        "paused: show; running processes heed it within 0.2 s\n"
    )
    with shell.started("run", "numbers") as process:
        line(process, "show is paused")
        until(lambda: shell.held()[2] == 1)
        assert shell.done("resume", "numbers", "show").startswith("resumed: show; ")
        assert process.stdout is not None
        assert process.stdout.readline() == "shown 2\n"


def test_stop_ends_what_runs(any_shell: Shell) -> None:
    shell = often(any_shell)
    shell.done("put", "numbers", "1")
    with shell.started("run", "numbers") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "shown 2\n"
        assert shell.done("stop", "numbers") == (
            "told all to stop; running processes heed it within 0.2 s, what starts from now on runs\n"
        )
        line(process, "is told to stop by the control word")
        line(process, "stopped, 2 calls done")
        assert process.wait(20) == 0


def test_what_starts_after_a_stop_runs(shell: Shell) -> None:
    often(shell).done("put", "numbers", "1")
    shell.done("stop", "numbers")
    with shell.started("run", "numbers") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "shown 2\n"
        shell.done("stop", "numbers")
        line(process, "is told to stop")


def test_stop_ends_all_processes(any_shell: Shell) -> None:
    shell = often(any_shell)
    shell.done("put", "numbers", "1")
    with shell.started("run", "numbers", "--processes", "2") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "shown 2\n"
        shell.done("stop", "numbers")
        line(process, "stopped, 2 calls done")
        assert process.wait(40) == 0


def test_status_shows_what_is_paused(shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    assert shell.done("pause", "numbers") == "paused: double, show; running processes heed it within 2 s\n"
    shell.done("resume", "numbers", "double")
    head, *rows = (each.split() for each in shell.done("status", "numbers").splitlines())
    assert (head[-1], [row[-1] for row in rows]) == ("state", ["0", "0", "paused"])
    assert list(json.loads(shell.done("status", "numbers", "--json"))["paused"]) == ["show"]


def test_pause_of_an_unknown_task_is_not_understood(shell: Shell) -> None:
    for command in ("pause", "resume"):
        said = shell.refused(command, "numbers", "shaw", code=2)
        assert "task 'shaw' is not registered (did you mean 'show'?): there are double, show" in said


def test_command_for_queues_that_were_never_made_is_an_error(any_shell: Shell) -> None:
    for command in ("pause", "resume", "stop"):
        assert f"{any_shell.domain}--double.fifo does not exist" in any_shell.refused(command, "numbers")


def test_pipe_that_never_looks_says_that_it_does_not(shell: Shell) -> None:
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("lease=5.0", "lease=5.0, control_interval=None"))
    shell.done("put", "numbers", "1")
    assert "no running process heeds it" in shell.done("stop", "numbers")
