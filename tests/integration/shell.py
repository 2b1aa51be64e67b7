"""What tests of the command line are made of: a folder with a pipe, commands in processes, a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sqspipes import TaskClient
from tests.integration.support import until

#: Seconds after which a command that should have ended, or said something, fails its test.
PATIENCE = 30.0

#: Two tasks; the first has two levels, and fails for some values.
PIPELINES = """
from sqspipes import TaskClient


def double(value):
    if value in ("bad", "worse"):
        raise (ValueError if value == "bad" else KeyError)(value)
    return 2 * value


def show(value):
    print("shown", value, flush=True)


numbers = TaskClient({domain!r}, lease=5.0, retries=0)
numbers.register_tasks([{{"method": double, "priorities": 2}}, {{"method": show, "priorities": 1}}])
"""

# Takes the terminal for its own, so that Ctrl-C is sent to it, and becomes the command.
_IN_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(2), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Terminal:
    """A command on a terminal, and what the terminal shows."""

    def __init__(self, command: list[str], *, columns: int, stdin: int | None, **options: Any) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_TERMINAL, *command],
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            **options,
        )
        os.close(slave)

    def wait_for(self, text: str) -> str:
        """Read until a text is shown; return all that was."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert self._read(deadline), f"{text!r} is not shown: {self.shown}"
        return self.shown

    def wait_for_row(self, *cells: str) -> None:
        """Read until the table of a live view has a row that begins with these cells."""
        deadline = time.monotonic() + PATIENCE
        while list(cells) not in [row[: len(cells)] for row in self.rows]:
            assert self._read(deadline), f"{cells} is not shown: {self.screen}"

    @property
    def screen(self) -> list[str]:
        """The lines as they stand there now, as if the terminal was as high as needed."""
        return screen_of(self.shown)

    @property
    def rows(self) -> list[list[str]]:
        """The rows of the last table of a live view, in words."""
        heads = [place for place, line in enumerate(self.screen) if line.startswith("task ")]
        return [line.split() for line in self.screen[heads[-1] + 1 :]] if heads else []

    def type(self, keys: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C, ``\\x04`` Ctrl-D."""
        if "\x03" in keys:
            # Python does not notice a signal that comes between the prompt and the read, until there is something
            # to read.
            until(lambda: psutil.Process(self._process.pid).status() == psutil.STATUS_SLEEPING)
        os.write(self._master, keys.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self._process.send_signal(number)

    def end(self) -> int:
        """Read until the command has ended; return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        """End what is left of it."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        try:
            text = os.read(self._master, 65_536) if ready else b""
        except OSError:  # the other side is closed
            return False
        self.shown += text.decode(errors="replace")
        return bool(text)


def screen_of(shown: str) -> list[str]:
    """Return the lines that a terminal has after all that was sent to it: lines are cleared and written anew."""
    lines, row, column = [""], 0, 0
    for control, text in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", shown):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif control == "\r":
            column = 0
        elif control.endswith("A"):
            row -= int(control[2:-1] or 1)
        elif control.endswith("K"):
            lines[row] = ""
    return [line.rstrip() for line in lines]


@dataclass(frozen=True)
class Shell:
    """A folder to work in: ``arguments`` lead a TaskClient to the broker that ``environment`` leads commands to."""

    folder: Path
    domain: str
    arguments: dict[str, Any]
    environment: dict[str, str] = field(repr=False)

    def write(self, name: str, text: str) -> None:
        """Write a file, in folders that are made for it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(
        self, *arguments: str, input: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self._command(arguments),
            **self._options(environment),
            input="" if input is None else input,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

    def done(self, *arguments: str, input: str | None = None) -> str:
        """Run a command that must succeed; return what it printed."""
        ended = self.run(*arguments, input=input)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def refused(self, *arguments: str, input: str | None = None, code: int = 1) -> str:
        """Run a command that must fail; return the last line that it said, after checking for a traceback."""
        ended = self.run(*arguments, input=input)
        assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
        return ended.stderr.splitlines()[-1]

    @contextlib.contextmanager
    def started(self, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
        """Start a command; give its process, and end it if it is left."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        with subprocess.Popen(self._command(arguments), **self._options({}), **streams, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def terminal(
        self, *arguments: str, columns: int = 80, stdin: int | None = None, **environment: str
    ) -> Iterator[Terminal]:
        """Start a command on a terminal."""
        command = self._command(arguments)[1:]
        environment = {"TERM": "xterm-256color", **environment}
        with contextlib.closing(
            Terminal(command, columns=columns, stdin=stdin, **self._options(environment))
        ) as terminal:
            yield terminal

    def client(self) -> TaskClient:
        """Return a client of the same queues, which runs nothing."""
        tasks = [{"name": "double", "priorities": 2}, {"name": "show", "priorities": 1}]
        return TaskClient(self.domain, lease=5.0, **self.arguments).register_tasks(tasks)

    def held(self) -> list[int]:
        """Return how many messages each level of each task has, and the first task's dead letters at the end."""
        with self.client() as client:
            levels = client.status().levels
            return [level.waiting + level.in_flight for level in levels] + [levels[0].dead]

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "sqspipes", *arguments]

    def _options(self, environment: dict[str, str]) -> dict[str, Any]:
        return {"cwd": self.folder, "env": {**self.environment, **environment}}
