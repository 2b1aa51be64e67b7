"""What the acceptance tests share: programs in processes of their own, and ways to look at what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqspipes import Broker

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds that only looking can tell; fail after so many seconds."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.02)


def drain_of(arguments: dict[str, Any]) -> float | bool:
    """Return the ``drain`` for a broker: the emulator's counts are exact at once, AWS's are not."""
    return 1.0 if arguments["broker"].startswith("sqs") else True


class Program:
    """A program of ``programs/`` in a process of its own, and the journal that its calls write."""

    def __init__(
        self, name: str, domain: str, arguments: dict[str, Any], journal: Path, **options: Any
    ) -> None:
        settings = {"domain": domain, "arguments": arguments, "journal": str(journal), **options}
        self.journal = journal
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / name), json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self) -> None:
        """Kill it with -9 and wait for its end."""
        self.process.kill()
        self.process.communicate()

    def terminate(self) -> float:
        """Send SIGTERM; return the seconds until it ended."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.end(60)
        return time.monotonic() - begun

    def end(self, seconds: float) -> str:
        """Wait for a good end; return what it printed."""
        output, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, output
        return output


@contextmanager
def program(
    name: str, domain: str, arguments: dict[str, Any], journal: Path, **options: Any
) -> Iterator[Program]:
    """Run a program inside a block; whatever happens, it is gone after it."""
    running = Program(name, domain, arguments, journal, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def calls(journal: Path) -> dict[str, Counter[str]]:
    """Return, per task, how often it was called with each value, from a journal of ``task value`` lines."""
    found: dict[str, Counter[str]] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        task, value = line.split(" ", 1)
        found.setdefault(task, Counter())[value] += 1
    return found


def received_again(broker: Broker, queue: str) -> set[str]:
    """Take all that can be received from a queue right now; return the bodies."""
    bodies: set[str] = set()
    while deliveries := broker.receive(queue, count=10, wait=0, lease=60, attempt=uuid.uuid4().hex):
        bodies.update(delivery.body for delivery in deliveries)
    return bodies
