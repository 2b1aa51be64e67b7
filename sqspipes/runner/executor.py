"""The Executor port: calls tasks, and says what came of it. The first executor is threads."""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqspipes.message import Death
from sqspipes.runner.held import Held, Origin
from sqspipes.runner.settler import Abandoned


class Call(NamedTuple):
    """One call to come: one or more messages of one task."""

    messages: tuple[Held, ...]


class Emission(NamedTuple):
    """One output: where it goes and under which id.

    ``text`` is the value's JSON, or None where nobody needs it. ``task`` None is the end of the line.
    """

    value: Any
    text: str | None
    id: str
    group: str | None
    priority: int
    task: str | None


class Ending(enum.Enum):
    """How a call ended for one message."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    RAISE = "raise"  #: the task's error stops the run; the message is given back


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended for one message: ``delay`` seconds until the next try, ``death`` of a dead letter."""

    ending: Ending
    delay: float = 0.0
    death: Death | None = None
    error: BaseException | None = None


#: The outcome that is the same every time.
DONE = Outcome(Ending.DONE)


class Engine(Protocol):
    """What an executor may ask of the engine. It never sees a broker."""

    def emit(self, origin: Origin, emission: Emission) -> None:
        """Pass one output on; blocks while the next queue is behind. Raises ``CodecError`` for what cannot go."""

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""

    def done(self, call: Call, outcomes: Sequence[Outcome]) -> Call | None:
        """Give one outcome per message of the call; return the call to run in its place, if there is one."""

    def abandoned(self, call: Call) -> None:
        """Say that a call ended early, because ``emit`` or ``flush`` raised ``Abandoned``."""


class Executor(ABC):
    """Runs calls, at most ``slots`` at once."""

    slots: int

    @abstractmethod
    def start(self, calls: Sequence[Call]) -> None:
        """Begin calls; never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Begin no call any more; threads that are idle end, running calls go on."""


class ThreadExecutor(Executor):
    """One thread per call, up to ``slots`` threads, started when they are first needed.

    One sleeping thread is woken at a time; when it takes a call it has the next one woken, if there is another call.
    So calls that end at once cost no change of threads each, and calls that wait are soon all under way.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        perform: Callable[[Held], Outcome],
        engine: Engine,
        died: Callable[[str, BaseException], None],
    ) -> None:
        self.slots = slots
        self._name = name
        self._perform = perform
        self._engine = engine
        self._died = died
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._sleeping: list[threading.Lock] = []  # one per thread that sleeps; releasing it wakes the thread
        self._waking = False  # a thread was woken, or started, and has not looked for a call yet
        self._threads = 0
        self._closed = False

    def start(self, calls: Sequence[Call]) -> None:
        with self._lock:
            self._calls.extend(calls)
            self._wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for bed in self._sleeping:
                bed.release()
            self._sleeping.clear()

    def _wake(self) -> None:
        """Have a thread look for calls, unless one is about to; the lock is held."""
        if self._waking:
            return
        if self._sleeping:
            self._waking = True
            self._sleeping.pop().release()
        elif self._threads < self.slots:
            name = f"sqspipes worker {self._name} {self._threads + 1}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
            self._threads += 1
            self._waking = True

    def _take(self) -> Call | None:
        """Take a call, if there is one, and have another thread look for the next; the lock is held."""
        if not self._calls:
            return None
        call = self._calls.popleft()
        if self._calls:
            self._wake()
        return call

    def _sleep(self, bed: threading.Lock) -> Call | None:
        """Wait for a call; None when there will be none."""
        while True:
            with self._lock:
                call = self._take()
                if call is not None:
                    return call
                if self._closed:
                    self._threads -= 1
                    return None
                self._sleeping.append(bed)
            bed.acquire()
            with self._lock:
                self._waking = False

    def _work(self) -> None:
        bed = threading.Lock()
        bed.acquire()
        try:
            with self._lock:
                self._waking = False
            call = self._sleep(bed)
            while call is not None:
                call = self._run(call) or self._sleep(bed)
        except BaseException as error:
            self._died(f"worker {self._name}", error)

    def _run(self, call: Call) -> Call | None:
        """Run a call; return the one to run next, which others may have been waiting for longer."""
        try:
            outcomes = [self._perform(held) for held in call.messages]
            following = self._engine.done(call, outcomes)
        except Abandoned:
            self._engine.abandoned(call)
            return None
        if following is not None and self._calls:
            with self._lock:
                self._calls.append(following)
                following = self._take()
        return following
