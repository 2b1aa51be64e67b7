"""Running: a responder and programs, each in a process of its own that ends with the ``with`` block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

#: The calls that carry messages.
CALLS = (
    *("SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage", "DeleteMessageBatch"),
    *("ChangeMessageVisibility", "ChangeMessageVisibilityBatch"),
)

#: Seconds that a program may take to answer.
PATIENCE = 900.0

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FailedError(Exception):
    """A program ended before it told what it found."""


@contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path = ROOT,
    output: Any = subprocess.PIPE,
) -> Iterator[Any]:
    """Start a process that talks by lines; kill it at the end, with all that it started."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=None if output is subprocess.PIPE else output,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: Any, patience: float = PATIENCE) -> str:
    """Return the next line that a process prints."""
    timer = threading.Timer(patience, process.kill)
    timer.daemon = True
    timer.start()
    try:
        text = str(process.stdout.readline())
    finally:
        timer.cancel()
    if not text:
        raise FailedError(f"{' '.join(process.args)} ended with {process.wait()}")
    return text


class Responder:
    """The SQS that is measured against; see ``benchmarks/responder``."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to find this server, and no account of the caller's."""
        return {
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_ENDPOINT_URL_SQS": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def reset(self, round_trip: float, quota: float = 0) -> None:
        """Count from zero; delay answers by ``round_trip`` seconds; allow ``quota`` requests a second, 0 for all."""
        self._ask("/reset", {"round_trip": round_trip, "quota": quota})

    def counts(self) -> list[dict[str, Any]]:
        """Return what was counted, by queue and action."""
        found: list[dict[str, Any]] = self._ask("/counters")
        return [count for count in found if count["action"] in CALLS]

    def empty(self) -> bool:
        """Whether nothing waits in any queue, and nothing is in flight."""
        return not any(map(any, self._ask("/depths").values()))

    def _ask(self, path: str, told: Mapping[str, Any] | None = None) -> Any:
        body = None if told is None else json.dumps(told).encode()
        with _opener.open(urllib.request.Request(self.url + path, body), timeout=30) as answer:
            return json.load(answer)


@contextmanager
def responder() -> Iterator[Responder]:
    """Start a responder."""
    with started([sys.executable, "-m", "benchmarks.responder.server"]) as process:
        yield Responder(int(line(process)))


class Program:
    """A program that is ready, and waits for the word."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.told: dict[str, Any] = json.loads(line(process))

    def go(self) -> None:
        """Let it begin."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def found(self) -> dict[str, Any]:
        """Return what it found."""
        found: dict[str, Any] = json.loads(line(self._process))
        return found


@contextmanager
def program(name: str, function: str, server: Responder | None = None, **options: Any) -> Iterator[Program]:
    """Start a function of a program, and wait until it is ready."""
    command = [sys.executable, "-m", f"benchmarks.programs.{name}", function, json.dumps(options)]
    with started(command, server.environment if server else None) as process:
        yield Program(process)


def until(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Wait until a condition holds; say whether it does."""
    end, never = time.monotonic() + seconds, threading.Event()
    while not (holds := condition()) and time.monotonic() < end:
        never.wait(every)
    return holds
