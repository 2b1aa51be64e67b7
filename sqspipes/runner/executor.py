"""The Executor port: calls tasks, and says what came of it. The first executor is threads."""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqspipes.messages.message import Death
from sqspipes.runner.held import Held, Origin
from sqspipes.runner.settler import Abandoned
from sqspipes.support import clocks

#: Calls that last less than so many seconds, waiting included, are run by one thread.
SHORT_SECONDS = 0.001

#: Seconds after which a second thread runs calls if the first has ended none.
GLANCE_SECONDS = 0.005

#: What the last call counts in the seconds that calls typically last, and a glance in how late it typically is.
WEIGHT_OF_LAST = 1 / 8

#: How often a short call may have to wait for the interpreter's lock: a glance that is late has waited for it once.
WAITS = 2

#: Seconds by which a glance is late at most because of that lock: one that is later was held up by something else.
MOST_LATE = 0.01

#: Seconds after which calls that seemed to be long are measured anew, one by one: many threads make short ones long.
DOUBT_SECONDS = 1.0


class Call(NamedTuple):
    """One call to come: one or more messages of one task."""

    messages: tuple[Held, ...]


class Emission(NamedTuple):
    """One output: where it goes and under which id.

    ``text`` is the value's JSON, or None where nobody needs it. ``task`` None is the end of the line. ``content`` is
    that of one of several outputs whose id is the task's own, and so says nothing of it.
    """

    value: Any
    text: str | None
    id: str
    group: str | None
    priority: int
    task: str | None
    content: str | None = None


class Ending(enum.Enum):
    """How a call ended for one message."""

    DONE = "done"
    RETRY = "retry"
    DEAD = "dead"
    BEHIND = "behind"  #: of a batch: a message before it in its group failed
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


#: A call that has ended, with one outcome for each of its messages.
Ended = tuple[Call, Sequence[Outcome]]


class Outlet(Protocol):
    """Where a call's outputs go."""

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Pass one output on; blocks while the next queue is behind. Raises ``CodecError`` for what cannot go.

        That is also what nobody would run: an iterator that nobody gets.

        The last one of a call may wait until the call has ended.
        """

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives, or a generator of what an async generator yields."""


class Engine(Outlet, Protocol):
    """What an executor may ask of the engine. It never sees a broker."""

    def done(self, *ended: Ended) -> Call | None:
        """Give one outcome per message of each call; return a call to run in their place, if there is one."""

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

    @abstractmethod
    def join(self, deadline: float) -> None:
        """Wait until what is idle has ended, until ``deadline`` (monotonic) at most; needs the ``close``."""

    @abstractmethod
    def watch(self, now: float) -> float | None:
        """Warn of what is wrong with running calls; return the seconds until there may be more, if ever."""


class ThreadExecutor(Executor):
    """One thread per call, up to ``slots`` threads, started when they are first needed.

    One sleeping thread is woken at a time; when it takes a call it has the next one woken, if there is another call,
    so that calls that wait are soon all under way. Calls that have been short of late are run by one thread, one
    after the other: several would only fight for the interpreter's lock. It settles some together. A second thread
    glances at it: as soon as one call has kept the first for long, it settles those before it and takes the next.
    Each thread calls ``leave`` at its end.
    """

    def __init__(
        self,
        name: str,
        slots: int,
        perform: Callable[[Call], Sequence[Outcome]],
        engine: Engine,
        died: Callable[[str, BaseException], None],
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        self.slots = slots
        self._name = name
        self._perform = perform
        self._engine = engine
        self._died = died
        self._leave = leave
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._sleeping: list[threading.Lock] = []  # one per thread that sleeps; releasing it wakes the thread
        self._watcher: threading.Lock | None = None  # the same of the thread that glances at the others
        self._waking = False  # a thread was woken, or started, and has not looked for a call yet
        self._started: list[threading.Thread] = []
        self._threads = 0
        self._active = 0  # threads that run calls
        self._ended = 0  # calls
        self._unsettled: list[Ended] = []  # calls that have ended
        self._typical = 0.0  # seconds of a call, the last ones counting most
        self._typical_since = 0.0  # only calls that began later count
        self._doubt_at = 0.0
        self._late = 0.0  # seconds that a glance typically is
        self._closed = False

    def start(self, calls: Sequence[Call]) -> None:
        with self._lock:
            self._calls.extend(calls)
            self._wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._waking = False
            for bed in self._sleeping:
                bed.release()
            self._sleeping.clear()
            if self._watcher is not None:
                self._watcher.release()
                self._watcher = None

    def join(self, deadline: float) -> None:
        for thread in list(self._started):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - clocks.monotonic()))

    def watch(self, now: float) -> float | None:
        return None

    @property
    def _one_will_do(self) -> bool:
        """Whether what waits is better left to the thread that is at work."""
        return self._active > 0 and self._short and not self._closed

    @property
    def _short(self) -> bool:
        """Whether calls are short, as far as they do not wait for the interpreter's lock."""
        return self._typical < SHORT_SECONDS + WAITS * self._late

    def _wake(self) -> None:
        """Have a thread look for calls, unless one is about to; the lock is held."""
        if self._waking or (self._watcher is not None and self._one_will_do):
            return
        if self._sleeping:
            self._waking = True
            self._sleeping.pop().release()
        elif self._watcher is not None:
            self._waking = True
            self._watcher.release()
            self._watcher = None
        elif self._threads < self.slots:
            name = f"sqspipes worker {self._name} {self._threads + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._started.append(thread)
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

    def _wait(self, bed: threading.Lock) -> Call | None:
        """Wait for a call; None when there will be none."""
        while True:
            with self._lock:
                if self._calls and not self._one_will_do:
                    self._active += 1
                    return self._take()
                if self._closed and not self._calls:
                    self._threads -= 1
                    return None
                watches = bool(self._calls) and self._watcher is None
                if watches:
                    self._watcher = bed
                else:
                    self._sleeping.append(bed)
            if watches:
                self._watch(bed)
                if (following := self._settle()) is not None:
                    self.start([following])
            else:
                bed.acquire()
                with self._lock:
                    self._waking = False

    def _watch(self, bed: threading.Lock) -> None:
        """Glance at the calls that end, until none does or this thread is told to look for one."""
        while True:
            ended = self._ended
            seconds = GLANCE_SECONDS + WAITS * self._late
            due = clocks.monotonic() + seconds
            told = bed.acquire(timeout=seconds)
            if not told:
                late = min(clocks.monotonic() - due, MOST_LATE)
                self._late += (late - self._late) * WEIGHT_OF_LAST
            with self._lock:
                if self._watcher is not bed:
                    if not told:
                        bed.acquire()
                    self._waking = False
                    return
                if self._ended == ended:
                    if self._calls:
                        self._typical = seconds
                    self._watcher = None
                    return

    def _work(self) -> None:
        bed = threading.Lock()
        bed.acquire()
        try:
            with self._lock:
                self._waking = False
            call = self._wait(bed)
            while call is not None:
                following = self._go_on(self._run(call))
                call = None  # a thread that waits keeps nothing of its last message
                call = following or self._wait(bed)
            self._leave()
        except BaseException as error:
            self._died(f"worker {self._name}", error)

    def _run(self, call: Call) -> Call | None:
        """Run a call, and short ones after it; return one that may be run next: others may have waited for longer."""
        following: Call | None = call
        until = clocks.monotonic() + SHORT_SECONDS
        while following is not None:
            call = following
            outcomes = self._timed(call)
            with self._lock:
                self._ended += 1
                if outcomes is not None:
                    self._unsettled.append((call, outcomes))
                following = self._calls.popleft() if self._calls and self._may_settle_later(until) else None
        return self._settle()

    def _timed(self, call: Call) -> Sequence[Outcome] | None:
        """Run a call and learn how long it takes; return None if its run had given it up."""
        began = clocks.monotonic()
        if began > self._doubt_at and not self._short:
            self._typical, self._typical_since = 0.0, began
        if self._short:
            self._doubt_at = began + DOUBT_SECONDS
        try:
            outcomes = self._perform(call)
        except Abandoned:
            self._engine.abandoned(call)
            return None
        if began > self._typical_since:
            self._typical += (clocks.monotonic() - began - self._typical) * WEIGHT_OF_LAST
        return outcomes

    def _may_settle_later(self, until: float) -> bool:
        """Say whether calls may wait to be settled with the next one: if that is long, the second thread does it."""
        return (
            self._active == 1
            and self._watcher is not None
            and self._one_will_do
            and clocks.monotonic() < until
        )

    def _settle(self) -> Call | None:
        """Settle calls that have ended, in this thread or another; return one that may be run next."""
        with self._lock:
            ended, self._unsettled = self._unsettled, []
        return self._engine.done(*ended) if ended else None

    def _go_on(self, following: Call | None) -> Call | None:
        """Return the next call of a thread that has ended one; None if it is to wait."""
        crowded = self._active > 1 and self._one_will_do
        if following is not None and not self._calls and not crowded:
            return following
        with self._lock:
            if following is not None:
                self._calls.append(following)
            if self._active > 1 and self._one_will_do:
                self._active -= 1
                if self._calls:
                    self._wake()
                return None
            call = self._take()
            self._active -= call is None
            return call
