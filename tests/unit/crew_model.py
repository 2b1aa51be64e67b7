"""A model of the machine that a crew runs on: one thread goes on at a time, and chance says which.

The crew's own code runs, in real threads, with locks, clock and threads of this model. Before each line of it, and in
each lock, another thread may go on. Time stands still until nobody can go on without it, or chance lets it pass.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from sqspipes.engine import crew as crew_module
from sqspipes.engine.crew import GLANCE_SECONDS, QUIET_GLANCES, Crew, LostBatonError
from sqspipes.engine.crew_parts import CrewLock, CrewParts

#: Seconds without a call after which the watcher goes to sleep, about then.
QUIET_SECONDS = QUIET_GLANCES * GLANCE_SECONDS

#: Steps after which a schedule that has not ended never will.
MOST_STEPS = 50_000

#: How often another thread may go on before a line of the crew's.
SWITCHES = 0.25


class ModelError(AssertionError):
    """What a crew must never do."""


class _ModelThread:
    def __init__(self, name: str) -> None:
        self.name = name
        self.go = threading.Semaphore(0)
        self.can_go_on: Callable[[], bool] = lambda: True
        self.deadline: float | None = None
        self.is_over = False


class Machine(CrewParts):
    """Threads, locks and a clock; ``run`` lets them go on until all have ended or wait for good."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.time = 0.0
        self.threads: list[_ModelThread] = []
        self.errors: list[BaseException] = []
        self.is_broken_off = False
        self._here = threading.local()
        self._back = threading.Semaphore(0)

    # What a crew is made of

    def lock(self) -> CrewLock:
        return ModelLock(self)

    def now(self) -> float:
        return self.time

    def thread(self) -> object:
        return self._here.thread

    def cpu_clock(self) -> int | None:
        return None

    def start(self, name: str, work: Callable[[], None]) -> None:
        thread = _ModelThread(name)
        self.threads.append(thread)

        def run() -> None:
            self._here.thread = thread
            thread.go.acquire()
            sys.settrace(self._trace)
            try:
                if not self.is_broken_off:
                    work()
            except BaseException as error:
                self.errors.append(error)
            finally:
                sys.settrace(None)
                thread.is_over = True
                self._back.release()

        threading.Thread(target=run, name=name, daemon=True).start()

    # For its threads

    def switch(self) -> None:
        """Let chance say who goes on."""
        self.wait(lambda: True)

    def wait(self, can_go_on: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait for a condition, so many seconds at most."""
        thread: _ModelThread = self._here.thread
        thread.can_go_on = can_go_on
        thread.deadline = None if seconds is None else self.time + seconds
        self._back.release()
        thread.go.acquire()
        if self.is_broken_off:
            raise ModelError("broken off")

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != crew_module.__file__:
            return None
        if event == "line" and self.random.random() < SWITCHES:
            self.switch()
        return self._trace

    # The schedule

    def run(self) -> None:
        """Let threads go on until all have ended; raises ``ModelError`` if they wait for good."""
        for _ in range(MOST_STEPS):
            living = [thread for thread in self.threads if not thread.is_over]
            if not living:
                return
            ready = [thread for thread in living if self._is_ready(thread)]
            deadlines = [thread.deadline for thread in living if thread.deadline is not None]
            if deadlines and not ready:
                self.time = max(self.time, min(deadlines))
                continue
            if deadlines and self.random.random() < 0.05:  # a thread may be kept from going on for some time
                self.time = min(self.time + GLANCE_SECONDS, max(self.time, min(deadlines)))
                continue
            if not ready:
                self._break_off()
                raise ModelError(f"all wait for good: {[thread.name for thread in living]}")
            self._go_on(self.random.choice(ready))
            if self.errors:
                self._break_off()
                raise self.errors[0]
        self._break_off()
        raise ModelError("it does not end")

    def _is_ready(self, thread: _ModelThread) -> bool:
        return thread.can_go_on() or (thread.deadline is not None and self.time >= thread.deadline)

    def _go_on(self, thread: _ModelThread) -> None:
        thread.deadline = None
        thread.go.release()
        self._back.acquire()

    def _break_off(self) -> None:
        self.is_broken_off = True
        for thread in self.threads:
            while not thread.is_over:
                self._go_on(thread)


class ModelLock:
    """A lock of the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; say whether it could be had."""
        if not hasattr(self._machine._here, "thread"):  # before the machine runs
            self._is_held = True
            return True
        self._machine.switch()
        if blocking and self._is_held:
            self._machine.wait(lambda: not self._is_held, None if timeout < 0 else timeout)
        if self._is_held:
            return False
        self._is_held = True
        return True

    def release(self) -> None:
        """Give the lock back."""
        if not self._is_held:
            raise RuntimeError("release unlocked lock")
        self._is_held = False
        if hasattr(self._machine._here, "thread"):
            self._machine.switch()


class Engine:
    """The state that one thread at a time may touch, and calls of which some last.

    ``seconds`` has how long each call lasts; a call that lasts may say so before. With ``stops_after`` the leader
    stops when so many calls have begun, and leaves those that last.
    """

    def __init__(
        self, machine: Machine, make: Callable[..., Crew], seconds: list[float], stops_after: int | None
    ) -> None:
        self.machine = machine
        self.seconds = seconds
        self.stops_after = stops_after
        self.begun = 0
        self.ended: list[int] = []
        self.inbox: list[int] = []
        self.inside: object = None
        self.leader: object = None
        self.crew = make("crew", self._lead, machine.errors.append, machine)

    def _enter(self) -> None:
        if self.inside is not None:
            raise ModelError("two threads are inside the engine")
        if self.leader is not self.machine.thread():
            raise ModelError("a former leader goes on though another thread leads")
        self.inside = self.machine.thread()

    def _check(self) -> None:
        if self.inside is not self.machine.thread():
            raise ModelError("a thread that does not lead is inside the engine")

    def _lead(self) -> None:
        self.leader = self.machine.thread()
        self._enter()
        while not self._is_over:
            # A turn: now and then nothing happens for so long that the watcher goes to sleep.
            quiet = self.machine.random.random() < 0.3
            self.machine.wait(lambda quiet=quiet: not quiet, QUIET_SECONDS)  # type: ignore[misc]
            self._check()
            self.ended += self.inbox
            self.inbox.clear()
            if self.begun < self._calls:
                self._call()
            elif not self._is_over:
                self.machine.wait(lambda: bool(self.inbox))  # the selector
                self._check()
        self._check()
        self.inside = None
        self.crew.close()

    @property
    def _calls(self) -> int:
        return len(self.seconds) if self.stops_after is None else self.stops_after

    @property
    def _is_over(self) -> bool:
        if self.stops_after is not None and self.begun >= self.stops_after:
            return True
        return len(self.ended) == len(self.seconds)

    def _call(self) -> None:
        number, self.begun = self.begun, self.begun + 1
        self.inside = None
        try:
            self.crew.call(lambda: self._work(number))
        except LostBatonError as lost:
            self.inbox.append(lost.args[0])
            raise
        self._enter()
        self.ended.append(number)

    def _work(self, number: int) -> int:
        seconds = self.seconds[number]
        if seconds:
            if self.machine.random.random() < 0.3:
                self.crew.about_to_wait()
            self.machine.wait(lambda: False, seconds)
        return number
