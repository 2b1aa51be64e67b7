"""Source: a first task without an input. The clock calls a source, not a message."""

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

#: The pause after a call that returned nothing: 0.1 s after the first such call, twice as long after each further
#: call in a row that returned nothing, 5 s at most.
IDLE_BACKOFF = ExponentialBackoff(0.1, 5.0)


class Source:
    """Calls a source once per interval, at most ``workers`` calls at a time, and emits what the calls return.

    A generator function is iterated by one thread. The thread takes one value per interval, and takes the next value
    only when the last one is safe. Async functions run on ``loop``, the event loop of the run, and the threads of the
    source wait for them.

    ``drain``: a call that returns nothing ends the source. ``ended`` is called when a thread of the source ends.
    ``gave_up`` is told of an error of a call that ends the run: the calls failed too often, another call would fail
    too, or the task has ``on_error="raise"``. ``died`` is told of an error outside of the calls.
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
        self._due = clocks.monotonic()  # when the interval allows the next call
        self._not_before = 0.0  # when the pause after an empty call or a failure is over
        self._idle_calls = 0  # calls in a row that returned nothing
        self._failures = 0  # calls in a row that failed
        self._running: dict[int, float] = {}  # threads in a call, and when it began, the oldest first
        self._overdue = Overdue(plan.task.name, plan.task.lease, lambda thread: "(a source)")
        self._live = 0  # threads that have not ended

    @property
    def task(self) -> str:
        """The task's name."""
        return self._plan.task.name

    @property
    def live(self) -> bool:
        """Whether the source may still call: not all of its threads have ended."""
        return self._live > 0

    def oldest_call(self) -> float | None:
        """Return for how many seconds the oldest running call has been running, None if no call runs."""
        with self._changed:
            return clocks.monotonic() - min(self._running.values()) if self._running else None

    def watch(self) -> float | None:
        """Warn of calls that run for long; return the seconds until there may be a call to warn of again."""
        with self._changed:
            seconds = self._overdue.look(self._running, clocks.monotonic())
        # If no call runs, the next call that begins has run for long after ``first`` seconds at the earliest.
        return self._overdue.first if seconds is None else seconds

    def start(self) -> None:
        """Start the threads that call: one for a generator function, ``workers`` for any other function."""
        generates = self._plan.kind.yields
        work = self._iterate if generates else self._call
        for number in range(1 if generates else self._plan.task.workers):
            name = f"sqspipes source {self._plan.task.domain} {self._plan.task.name} {number + 1}"
            with self._changed:  # a thread that ends at once waits for this lock, until it has been counted
                threading.Thread(target=self._guard, args=(work,), name=name, daemon=True).start()
                self._live += 1

    def pause(self, paused: bool) -> bool:
        """Begin no call if ``paused``, else go on; return whether that is a change."""
        with self._changed:
            changed, self._paused = paused != self._paused, paused
            self._changed.notify_all()
        return changed

    def stop(self) -> None:
        """Begin no further call."""
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
        """Tear down this thread's instance of a step. Instances of async steps are torn down when the loop ends."""
        if self._plan.step is not None and not self._plan.kind.is_async:
            self._plan.step.leave()

    def _call(self) -> None:
        """Call a function at each tick, until the source is stopped."""
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
        """Iterate over what a generator function makes. After an error call the function again; at the end stop."""
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
        # The ids of outputs are derived from the identity of the message that was called. A source is called without
        # a message, so each of its results has a message with a random identity made for it.
        id = uuid.uuid4().hex
        parent = Message(id, None, priority=0 if callable(self._priority) else self._priority, identity=id)
        result = prioritized(self._plan, result, level_of, self._outlet)
        perform.hand_on(self._plan, origin, parent, result, self._outlet)

    def _wait_for_tick(self) -> bool:
        """Wait for the next tick; return whether a call is to begin, False when the source is stopped."""
        with self._ticking:  # one thread waits for the tick, the other threads wait for this lock
            if not self._wait_until_due():
                return False
            # The interval may be a function of the user's, which may hang. So the function counts as a running call,
            # which the log warns of, and is called without ``_changed``, for which ``stop`` would wait.
            with _Running(self):
                interval = self._plan.task.next_interval()
            with self._changed:
                now = clocks.monotonic()
                late = now - self._due
                # Missed ticks are not made up: a tick that is late by an interval or more begins a new schedule.
                self._due = (self._due if late < interval else now) + interval
                return not self._stopped

    def _wait_until_due(self) -> bool:
        """Wait until the next call is due; return True then, and False when the source is stopped."""
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
        fatal = isinstance(error, (*task.non_retryable, OptionError))  # another call would fail, too
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
    """Notes in a source that the calling thread is in a call."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> None:
        with self._source._changed:
            self._source._running[threading.get_ident()] = clocks.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._source._changed:
            self._source._running.pop(threading.get_ident(), None)
