"""A fleet: processes that share one pipe, each a program of ``programs/``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.ledger import wait_for

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]


class Worker:
    """One process of the pipe; ``log`` is what it printed and logged so far."""

    def __init__(self, program: str, settings: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAMS / program), json.dumps(settings)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP, SIGCONT, SIGTERM."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it with -9 and wait for its end."""
        self.process.kill()
        self.process.wait()

    def end(self, seconds: float = 30.0) -> None:
        """Wait for a good end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.log[-3000:]}") from None
        assert self.process.returncode == 0, self.log[-3000:]

    def said(self, text: str, seconds: float = 30.0) -> None:
        """Wait until a text is in its log."""
        wait_for(lambda: text in self.log, seconds, lambda: f"{text!r} is not in:\n{self.log[-3000:]}")


class Fleet:
    """Starts workers on one pipe, and knows them all.

    ``settings`` are for ``programs/worker.py``: domain, arguments (of TaskClient), journal, and what its
    docstring says; each worker may differ from them.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.workers: list[Worker] = []

    def start(self, program: str = "worker.py", **settings: Any) -> Worker:
        """Start one more worker; its log says ``runs on`` once it does."""
        log = self.folder / f"worker{len(self.workers)}.log"
        worker = Worker(program, {**self.settings, **settings}, log)
        self.workers.append(worker)
        return worker

    @property
    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running]

    @property
    def log(self) -> str:
        """What all of them logged."""
        return "".join(worker.log for worker in self.workers)

    def end(self) -> None:
        """Interrupt what runs, which also cuts open polls, and wait for the good end of each."""
        for worker in self.running:
            worker.send(signal.SIGINT)
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.end()


@contextlib.contextmanager
def fleet(folder: Path, **settings: Any) -> Iterator[Fleet]:
    """A fleet inside a block; whatever happens, its processes are gone after it."""
    found = Fleet(folder, **settings)
    try:
        yield found
    finally:
        for worker in found.running:
            worker.kill()
