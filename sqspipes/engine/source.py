"""Source: a first task that the clock calls, and not a message."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from sqspipes.calls import error_text, perform
from sqspipes.calls.held import Origin
from sqspipes.calls.outcome import Abandoned, Outlet
from sqspipes.calls.prioritized import prioritized
from sqspipes.calls.run_loop import RunLoop
from sqspipes.engine.overdue import Overdue
from sqspipes.errors import OptionError
from sqspipes.messages.message import Message
from sqspipes.summary import Counts
from sqspipes.support import clocks, lines
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.support.forked import OVER, called
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.results import Retry, TaskCallback, ends_line

logger = lines.logger(__name__)

#: Seconds of the pause after a source returned nothing: the first, doubling to the longest.
IDLE_BACKOFF = ExponentialBackoff(0.1, 5.0)


class Source:
    """Calls a source once per interval, at most ``workers`` calls at a time, and emits what it returns.

    A generator function is iterated by one thread, one value per interval, and resumed only when its last value
    is safe. What is async runs on the run's ``loop``, and the threads wait for it. ``ended`` is told when a thread of
    it ends, ``gave_up`` of the error that failed too often.
    """

    def __init__(
        self,
        plan: Plan,
        outlet: Outlet,
        priority: int | Callable[[Any], int],
        *,
        drain: bool,
        ended: Callable[[], None],
        gave_up: Callable[[BaseException], None],
        died: Callable[[str, BaseException], None],
        loop: RunLoop,
    ) -> None:
        self.counts = Counts()
        self._plan = plan
        self._outlet = outlet
        self._priority = priority
        self._drain = drain
        self._ended = ended
        self._gave_up = gave_up
        self._died = died
        self._loop = loop
        self._changed = threading.Condition()
        self._ticking = threading.Lock()
        self._stopped = False
        self._paused = False
        self._due = clocks.monotonic()
        self._not_before = 0.0
        self._idle_calls = 0
        self._failures = 0
        self._running: dict[int, float] = {}  # threads in a call, and since when, the oldest first
        self._overdue = Overdue(plan.task.name, plan.task.lease, lambda thread: "(a source)")
        self._live = 0

    @property
    def task(self) -> str:
        """The task's name."""
        return self._plan.task.name

    @property
    def live(self) -> bool:
        """Whether it may still call: its threads have not all ended."""
        return self._live > 0

    def oldest_call(self) -> float | None:
        """Return the seconds that the oldest running call has been running."""
        with self._changed:
            return clocks.monotonic() - min(self._running.values()) if self._running else None

    def watch(self) -> float | None:
        """Warn of calls that run for long; return the seconds until there may be another one to warn of."""
        with self._changed:
            seconds = self._overdue.look(self._running, clocks.monotonic())
        return (
            self._overdue.first if seconds is None else seconds
        )  # one that begins later is seen in time, too

    def start(self) -> None:
        """Begin to call."""
        generates = self._plan.kind.yields
        work = self._iterate if generates else self._call
        for number in range(1 if generates else self._plan.task.workers):
            name = f"sqspipes source {self._plan.task.domain} {self._plan.task.name} {number + 1}"
            with self._changed:
                threading.Thread(target=self._guard, args=(work,), name=name, daemon=True).start()
                self._live += 1

    def pause(self, paused: bool) -> bool:
        """Begin no call until told to go on; return whether that is a change."""
        with self._changed:
            changed, self._paused = paused != self._paused, paused
            self._changed.notify_all()
        return changed

    def stop(self) -> None:
        """Begin no call any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Abandoned:
            pass
        except BaseException as error:
            self._died(f"source {self._plan.task.name}", error)
        try:
            self._leave()
        finally:
            with self._changed:
                self._live -= 1
            self._ended()

    def _leave(self) -> None:
        """Tear down what a step has in this thread; on a loop its end does."""
        if self._plan.step is not None and not self._plan.kind.is_async:
            self._plan.step.leave()

    def _call(self) -> None:
        """Call a function source at each tick, until it is over."""
        while True:
            try:
                if not self._wait_for_tick():
                    return
                with _Running(self):
                    made = called(self._plan.function, *self._plan.task.args)
                    result = perform.resolved(made, self._outlet)
                    self._emit(Origin(), result)
            except Abandoned:
                raise
            except BaseException as error:
                self._failed(error)
                continue
            plain = result.result if isinstance(result, TaskCallback) else result
            self._succeeded(empty=ends_line(plain, self._plan.ignore_none))

    def _iterate(self) -> None:
        """Iterate over a generator source, and begin anew after an error."""
        while not self._stopped:
            made = self._plan.function(*self._plan.task.args)
            values = self._loop.get().pulled(made) if self._plan.kind.is_async else made
            try:
                self._iterate_once(values)
                break
            except Abandoned:
                raise
            except BaseException as error:
                self._failed(error)
            finally:
                perform.close(values, self._plan.task.name)
        self.stop()

    def _iterate_once(self, values: Iterator[Any]) -> None:
        while self._wait_for_tick():
            with _Running(self):
                value = called(next, values, OVER)
                if value is OVER:
                    return
                origin = Origin()
                self._emit(origin, value)
                self._outlet.flush(origin)
            self._succeeded(empty=False)

    def _emit(self, origin: Origin, result: Any) -> None:
        level_of = self._priority if callable(self._priority) else None
        id = uuid.uuid4().hex
        parent = Message(id, None, priority=0 if callable(self._priority) else self._priority, identity=id)
        result = prioritized(self._plan, result, level_of, self._outlet)
        perform.hand_on(self._plan, origin, parent, result, self._outlet)

    def _wait_for_tick(self) -> bool:
        """Wait for the next call's time; False when there will be none."""
        with self._ticking:  # one thread waits for the tick, the others for their turn
            if not self._wait_until_due():
                return False
            with _Running(self):  # a function of the user's, which may hang: no stop may wait for it
                interval = self._plan.task.next_interval()
            with self._changed:
                now = clocks.monotonic()
                late = now - self._due
                # A clock that is late by a whole interval does not run after the calls it missed.
                self._due = (self._due if late < interval else now) + interval
                return not self._stopped

    def _wait_until_due(self) -> bool:
        """Wait until the next call is due; False when there will be none."""
        with self._changed:
            while not self._stopped:
                due = max(self._due, self._not_before)
                left = due - clocks.monotonic()
                if left <= 0 and not self._paused:
                    return True
                self._changed.wait(None if self._paused else left)
            return False

    def _succeeded(self, *, empty: bool) -> None:
        with self._changed:
            self.counts.done += 1
            self._failures = 0
            if not empty:
                self._idle_calls, self._not_before = 0, 0.0
            elif self._drain:
                self._stopped = True
            else:
                self._idle_calls += 1
                self._not_before = clocks.monotonic() + IDLE_BACKOFF.seconds(self._idle_calls)
            self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        task = self._plan.task
        with self._changed:
            self.counts.failed += 1
            self._failures += 1
            failures = self._failures
        final = task.retries is not None and failures > task.retries
        decided = isinstance(error, Retry)
        fatal = isinstance(error, (*task.non_retryable, OptionError))  # another call would do the same
        if final or fatal or (task.on_error == "raise" and not decided):
            logger.error(
                "%s failed %d times in a row, the run ends",
                task.name,
                failures,
                exc_info=error_text.loggable(error),
            )
            self.stop()
            self._gave_up(error)
            return
        asked = error.delay if isinstance(error, Retry) else None
        delay = perform.safe_delay(task, failures, error) if asked is None else asked
        logger.warning(
            "%s failed, %d in a row, again in %.1f s: %s",
            task.name,
            failures,
            delay,
            error_text.describe(error),
        )
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s failed", task.name, exc_info=error_text.loggable(error))
        with self._changed:
            self._not_before = clocks.monotonic() + delay


class _Running:
    """Counts a call while it runs."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        with self._source._changed:
            self._source._running[threading.get_ident()] = clocks.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._source._changed:
            self._source._running.pop(threading.get_ident(), None)
