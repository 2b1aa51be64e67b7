"""Member: one of several processes, as the parent sees it: started, told, heard, started again."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from sqspipes.processes import child
from sqspipes.processes.printed import Printed
from sqspipes.support import clocks
from sqspipes.support.backoff import ExponentialBackoff

#: A process that lived for so many seconds is started again at once.
LONG_LIFE = 10.0

#: Seconds before a process is started again: doubling from the first to the longest.
BACKOFF = ExponentialBackoff(0.5, 20.0)

#: Seconds for which the end of a process may be told before its exit code is.
CODE_SECONDS = 1.0


class Member:
    """One process: ``due`` is when it is to be started, ``deadline`` when it is to be killed (monotonic clock)."""

    def __init__(self, number: int, domain: str, parcel: bytes, printed: Printed | None = None) -> None:
        self.number = number
        self.due = 0.0 if number == 1 else math.inf
        self.deadline = math.inf
        self.ready = False
        self.report: dict[str, Any] | None = None
        #: How often in a row it ended before it was ready; and whether that was for the want of a guard.
        self.stillborn = 0
        self.unguarded = False
        #: What its broker said last, while it does not answer.
        self.outage: str | None = None
        self._asked = False
        self._printed = printed
        self._name = f"sqspipes {domain} {number}"
        self._parcel = parcel
        self._process: SpawnProcess | None = None
        self._link: Connection | None = None
        self._started = 0.0
        self._short_lives = 0
        self._ended: float | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a process, its end not yet seen."""
        return self._process is not None

    @property
    def waited(self) -> list[Any]:
        """What becomes ready when the process says something or ends."""
        found: list[Any] = [] if self._link is None else [self._link]
        if self._process is not None and self._ended is None:
            found.append(self._process.sentinel)
        return found

    @property
    def look(self) -> float:
        """The monotonic time at which it is to be looked at, whatever it says."""
        if self._ended is not None:
            return clocks.monotonic() + CODE_SECONDS / 20
        return self.deadline if self.alive else self.due

    def start(self) -> None:
        """Start the process: what is sent to all of a group waits until it can handle it."""
        self.due, self.deadline, self._ended = math.inf, math.inf, None
        self.ready, self.report, self._asked = False, None, False
        self._started = clocks.monotonic()
        self._link, end = multiprocessing.Pipe()
        with end, ExitStack() as writer:
            arguments = (end, self._parcel, self.number == 1, self._divert(writer))
            self._process = multiprocessing.get_context("spawn").Process(
                target=child.main, args=arguments, name=self._name, daemon=False
            )
            _start_blocked(self._process)

    def _divert(self, writer: ExitStack) -> tuple[Connection, ...]:
        """Return the pipe for what the process prints, if that is wanted: this side is closed when it has started."""
        if self._printed is None:
            return ()
        ends = multiprocessing.Pipe(duplex=False)
        writer.enter_context(ends[1])
        self._printed.listen(ends[0], self._name)
        return ends

    def ask(self) -> None:
        """Ask for its counts, unless an answer is still to come: so one that does not listen is not waited for."""
        if self._link is not None and self.ready and not self._asked:
            self._asked = True
            with suppress(OSError):
                self._link.send_bytes(json.dumps({"ask": "counts"}).encode())

    def tell(self, level: str, deadline: float) -> None:
        """Pass a stop on, and let the process end until ``deadline``."""
        self.due = math.inf
        self.deadline = min(self.deadline, deadline)
        if self._link is not None:
            with suppress(OSError):
                self._link.send_bytes(json.dumps({"stop": level}).encode())

    def heard(self) -> Iterator[dict[str, Any]]:
        """Yield what the process says, as far as it has come; remember its report and its outage."""
        while self._link is not None:
            try:
                if not self._link.poll():
                    return
                message = json.loads(self._link.recv_bytes())
            except (EOFError, OSError):
                self._link.close()
                self._link = None
                return
            if "ready" in message:
                self.ready, self.stillborn = True, 0
            elif is_report(message):
                self.report = message
            else:
                self._asked = False
            self.outage = message.get("outage")
            yield message

    def ended(self) -> str | None:
        """Return how the process ended, once it has: ``exit code 1`` or ``signal 9``."""
        if self._process is None:
            return None
        code = self._process.exitcode
        if code is None and self._ended is None and connection.wait([self._process.sentinel], 0):
            self._ended = clocks.monotonic()
        waited = self._ended is not None and clocks.monotonic() > self._ended + CODE_SECONDS
        if code is None and not waited:
            return None
        self.unguarded = code == child.UNGUARDED and not self.ready
        if code is None:  # somebody else has taken it
            return "exit code unknown"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def bury(self) -> None:
        """Release what the process left, once its end was seen."""
        if not self.ready and self.report is None:
            self.stillborn += 1
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            with suppress(ValueError):
                self._process.close()
        self._link, self._process, self._ended, self.outage = None, None, None, None

    def restart(self, *, died: bool) -> None:
        """Have it started again, after a pause if it did not live long."""
        pause = BACKOFF.first
        if died:
            long = clocks.monotonic() - self._started >= LONG_LIFE
            self._short_lives = 0 if long else self._short_lives + 1
            pause = 0.0 if long else BACKOFF.seconds(self._short_lives)
        self.due = clocks.monotonic() + pause

    def kill(self) -> None:
        """End it at once; its end is still to be seen."""
        if self._process is not None:
            self._process.kill()
        self.deadline = math.inf


def is_report(message: Mapping[str, Any]) -> bool:
    """Say whether a message is the last one of its process."""
    return "error" in message or "reason" in message


def _start_blocked(process: SpawnProcess) -> None:
    """Start a process that has signals blocked, as it inherits the mask of the thread that starts it."""
    if not hasattr(signal, "pthread_sigmask"):
        process.start()
        return
    resource_tracker.ensure_running()  # what starts it may unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, child.BLOCKED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
