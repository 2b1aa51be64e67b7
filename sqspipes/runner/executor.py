"""The Executor port: calls tasks, and says what came of it. The first executor is threads."""

from __future__ import annotations

import enum
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqspipes.message import Death
from sqspipes.runner.held import Held, Origin
from sqspipes.runner.settler import Abandoned


@dataclass(frozen=True, slots=True)
class Call:
    """One call to come: one or more messages of one task."""

    messages: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Emission:
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

    def done(self, call: Call, outcomes: Sequence[Outcome]) -> None:
        """Give one outcome per message of the call."""

    def abandoned(self, call: Call) -> None:
        """Say that a call ended early, because ``emit`` or ``flush`` raised ``Abandoned``."""


class Executor(ABC):
    """Runs calls, at most ``slots`` at once."""

    slots: int

    @abstractmethod
    def start(self, call: Call) -> None:
        """Begin a call; never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Begin no call any more; threads that are idle end, running calls go on."""


class ThreadExecutor(Executor):
    """One thread per call, up to ``slots`` threads, started when they are first needed."""

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
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0  # threads that wait for a call, less the calls that wait for a thread
        self._threads = 0

    def start(self, call: Call) -> None:
        with self._lock:
            self._free -= 1
            if self._free < 0 and self._threads < self.slots:
                self._free += 1
                self._threads += 1
                name = f"sqspipes worker {self._name} {self._threads}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put(call)

    def close(self) -> None:
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        try:
            while (call := self._calls.get()) is not None:
                try:
                    outcomes = [self._perform(held) for held in call.messages]
                    self._engine.done(call, outcomes)
                except Abandoned:
                    self._engine.abandoned(call)
                with self._lock:
                    self._free += 1
        except BaseException as error:
            self._died(f"worker {self._name}", error)
