"""Crew: the threads of one run, of which one at a time leads.

The leader holds the baton and does everything that touches the state of the run. It also makes short calls itself.
If such a call keeps the leader, the next thread of the crew takes the baton and goes on; the former leader finds that
out when its call ends, leaves word of the outcome and follows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqspipes.engine.crew_parts import CrewLock, CrewParts

#: Seconds between two glances of the watcher.
GLANCE_SECONDS = 0.003

#: Glances for which a call that computes may keep the leader: whoever went on beside it would only fight for the
#: interpreter's lock.
PATIENT_GLANCES = 10

#: Glances without a call after which the watcher sleeps until there is one.
QUIET_GLANCES = 4

#: The part of a glance for which a call must have used a processor to be one that computes.
COMPUTING_PART = 0.5

Result = TypeVar("Result")


class LostBatonError(Exception):
    """Another thread leads by now: the calling one must leave the state of the run alone."""


class Leadership:
    """One thread's time as the leader. Each has a baton of its own: taken away once, it is never had again."""

    __slots__ = ("baton", "calls", "cpu_clock", "is_calling", "thread", "waits")

    def __init__(self, baton: CrewLock) -> None:
        self.baton = baton  #: held by the leader, except while it makes a call
        self.thread: object = None
        self.cpu_clock: int | None = None
        self.calls = 0  #: that it has begun
        self.is_calling = False
        self.waits = False  #: its call is about to wait: nobody need glance at it first


class Crew:
    """Threads that lead in turn.

    ``lead`` is called by each new leader. It returns when it has called ``close``, or when it met ``LostBatonError``.
    ``died`` is told of what it raises otherwise.
    """

    def __init__(
        self,
        name: str,
        lead: Callable[[], None],
        died: Callable[[BaseException], object],
        parts: CrewParts | None = None,
    ) -> None:
        self._name = name
        self._lead = lead
        self._died = died
        self._parts = parts or CrewParts()
        self._lock = self._parts.lock()  # of the watcher and the followers
        self._followers: list[CrewLock] = []  # one for each thread that waits; its release wakes the thread
        self._watcher: CrewLock | None = None  # the same of the thread that glances at the leader
        self._watcher_sleeps = False
        self._threads = 0
        self.leadership = Leadership(self._parts.lock())  #: of now
        self._over = self._taken_lock()
        self.is_started = self.is_closed = False
        self.takeovers = 0

    # By the supervisor

    def start(self) -> None:
        """Begin to lead, in a thread of the crew."""
        self.leadership.baton.acquire()
        self.is_started = True
        self._start_thread(self._first)

    def wait(self, seconds: float) -> bool:
        """Wait until the crew is closed, so many seconds at most."""
        if self._over.acquire(timeout=seconds):
            self._over.release()
            return True
        return False

    # By the leader

    def call(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Make a call without the baton; ``work`` must not raise.

        Raises ``LostBatonError``, with the result, if another thread leads when the call ends. The result is None if
        ``work`` raised all the same.
        """
        leadership = self.leadership
        leadership.calls += 1
        leadership.is_calling = True
        if self._watcher is None or self._watcher_sleeps:
            try:
                self._have_watched()
            except BaseException:
                leadership.is_calling = False
                raise
        leadership.baton.release()
        try:
            result = work(*arguments)
        except BaseException as error:  # raised into this thread from outside
            if leadership.baton.acquire(False):
                leadership.is_calling = leadership.waits = False
                raise
            raise LostBatonError(None) from error
        if not leadership.baton.acquire(False):
            raise LostBatonError(result)
        leadership.is_calling = leadership.waits = False
        return result

    def close(self) -> None:
        """End the crew: all threads that wait end; calls that are under way go on, and their threads end then."""
        with _held(self._lock):
            self.is_closed = True
            for follower in self._followers:
                follower.release()
            self._followers.clear()
            if self._watcher is not None:
                _wake(self._watcher)
        self._over.release()

    # By a call

    def about_to_wait(self) -> None:
        """Have another thread lead at once; to be called inside a call of the leader's that is about to wait."""
        leadership = self.leadership
        if leadership.is_calling and leadership.thread == self._parts.thread():
            leadership.waits = True
            self._have_watched()
            with _held(self._lock):
                if self._watcher is not None:
                    _wake(self._watcher)

    # Threads of the crew

    def _taken_lock(self) -> CrewLock:
        lock = self._parts.lock()
        lock.acquire()
        return lock

    def _start_thread(self, work: Callable[[], None]) -> None:
        self._threads += 1
        self._parts.start(f"{self._name} {self._threads}", work)

    def _first(self) -> None:
        self._run_as_leader()
        self._follow()

    def _run_as_leader(self) -> None:
        leadership = self.leadership
        leadership.thread, leadership.cpu_clock = self._parts.thread(), self._parts.cpu_clock()
        try:
            self._lead()
        except LostBatonError:
            return
        except BaseException as error:
            self._died(error)

    def _follow(self) -> None:
        """Wait until there is nobody who watches the leader, and do that, over and over."""
        while (bed := self._followed()) is not None:
            bed.acquire()
            self._watch(bed)

    def _followed(self) -> CrewLock | None:
        """Return what the calling thread, a follower now, has to wait for; None after the ``close``."""
        bed = self._taken_lock()
        with _held(self._lock):
            if self.is_closed:
                return None
            self._followers.append(bed)
        return bed

    def _begin_to_watch(self, bed: CrewLock) -> None:
        self._watch(bed)
        self._follow()

    def _have_watched(self) -> None:
        """Have a thread glance at the leader: the one that sleeps, a follower, or a new one."""
        with _held(self._lock):
            if self._watcher is not None:
                if self._watcher_sleeps:
                    self._watcher_sleeps = False
                    _wake(self._watcher)
                return
            if self._followers:
                self._watcher = self._followers.pop()
                self._watcher.release()
                return
            bed = self._watcher = self._taken_lock()
        try:
            self._start_thread(lambda: self._begin_to_watch(bed))
        except BaseException:
            self._watcher = None
            raise

    def _watch(self, bed: CrewLock) -> None:
        """Glance at the leader, and lead in its place when a call keeps it."""
        seen: tuple[Leadership, int] | None = None
        quiet = patient = 0
        at, cpu = self._parts.now(), None
        while not self.is_closed:
            bed.acquire(timeout=GLANCE_SECONDS)
            leadership = self.leadership
            now, calls = self._parts.now(), (leadership, leadership.calls)
            if calls != seen:
                seen, quiet, patient = calls, 0, 0
                at, cpu = now, self._parts.cpu_seconds(leadership.cpu_clock)
                if not leadership.waits:
                    continue
            if leadership.is_calling:
                used = self._parts.cpu_seconds(leadership.cpu_clock)
                computes = None not in (used, cpu) and used - cpu > COMPUTING_PART * (now - at)  # type: ignore[operator]
                at, cpu, patient = now, used, patient + 1
                if computes and patient < PATIENT_GLANCES and not leadership.waits:
                    continue
                if leadership.baton.acquire(False):
                    self._take_over()
                    return
                continue
            quiet += 1
            if quiet >= QUIET_GLANCES:
                quiet = 0
                self._sleep(bed, leadership)
        with _held(self._lock):
            if self._watcher is bed:
                self._watcher = None

    def _sleep(self, bed: CrewLock, leadership: Leadership) -> None:
        """Sleep until there is a call."""
        with _held(self._lock):
            if self.is_closed:
                return
            self._watcher_sleeps = True
        # A call that began before it was seen that the watcher sleeps is seen here.
        if self.leadership is leadership and not leadership.is_calling:
            bed.acquire()
        with _held(self._lock):
            self._watcher_sleeps = False

    def _take_over(self) -> None:
        with _held(self._lock):
            self._watcher = None
        leadership = Leadership(self._taken_lock())
        self.leadership = leadership
        self.takeovers += 1
        self._run_as_leader()


class _held:  # noqa: N801 - a context manager
    """Holds a lock for a block; those that are injected need not be context managers."""

    __slots__ = ("_lock",)

    def __init__(self, lock: CrewLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _wake(bed: CrewLock) -> None:
    with suppress(RuntimeError):  # it was woken before
        bed.release()
