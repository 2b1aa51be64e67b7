"""What ends a command: a terminal that goes away, and Ctrl-C before it has begun."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil
import pytest

from tests.integration.shell import Shell
from tests.integration.support import until


@pytest.mark.parametrize("words", [[], ["--processes", "2"]])
def test_run_whose_terminal_goes_away_stops_in_good_order(words: Sequence[str], shell: Shell) -> None:
    with shell.started("run", "numbers", *words, start_new_session=True) as process:
        shell.done("put", "numbers", "1")
        until(lambda: shell.held()[:3] == [0, 0, 0])
        for each in group(process):
            each.send_signal(signal.SIGHUP)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "signal, " in said
    assert "died" not in said


def group(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process with all it has started, as a terminal's end reaches them."""
    first = psutil.Process(process.pid)
    return [
        each
        for each in (first, *first.children(recursive=True))
        if "resource_tracker" not in str(each.cmdline())
    ]


def test_run_under_nohup_goes_on(shell: Shell) -> None:
    program = [sys.executable, "-m", "sqspipes", "run", "numbers"]
    with subprocess.Popen(
        ["nohup", *program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **shell._options({}),
    ) as process:
        try:
            shell.done("put", "numbers", "1")
            until(lambda: shell.held()[:3] == [0, 0, 0])
            process.send_signal(signal.SIGHUP)
            shell.done("put", "numbers", "2")
            until(lambda: shell.held()[:3] == [0, 0, 0])
            assert process.poll() is None
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


#: In place of a module that the command imports: it is there, and stays.
SLOW = """
import pathlib, threading
pathlib.Path("begun").touch()
threading.Event().wait(60)
"""


def test_interrupt_while_the_command_is_imported_leaves_no_traceback(shell: Shell) -> None:
    shell.write("click.py", SLOW)
    with shell.started("status", "numbers") as process:
        until((shell.folder / "begun").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_other_programs_keep_their_interrupt(shell: Shell) -> None:
    text = "import signal as s, sqspipes, sqspipes.cli as c; print(*map(s.getsignal, (s.SIGINT, s.SIGHUP)))"
    for words in (["-c", text], ["-c", text, "-m", "sqspipes"]):
        ended = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=True, **shell._options({})
        )
        assert ended.stdout == f"{signal.default_int_handler} {signal.SIG_DFL}\n"
