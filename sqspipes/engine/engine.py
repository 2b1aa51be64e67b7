"""Engine: runs the turns of one run, in the thread that leads, and stops them in good order."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from sqspipes.brokers.base import Broker
from sqspipes.engine.crew import LostBatonError
from sqspipes.engine.dues import Dues
from sqspipes.engine.effects import Lost, Refused, Settled
from sqspipes.engine.ending import RunEnding
from sqspipes.engine.leases import Leases
from sqspipes.engine.loop import EngineLoop
from sqspipes.engine.parts import RunParts
from sqspipes.engine.requests import PartError
from sqspipes.engine.stopping import Stopping, StopState
from sqspipes.engine.task_run import TaskRun
from sqspipes.support import clocks, lines
from sqspipes.support.clocks import LeaseClock
from sqspipes.support.log_writer import log_writer
from sqspipes.tasks.plan import RunPlan

logger = lines.logger(__name__)

#: Seconds for which the leader makes calls of one task before it looks after everything else.
SLICE_SECONDS = 0.001

#: Seconds between two looks of the run's own thread whether the crew has ended.
SUPERVISOR_SECONDS = 60.0


class Engine:
    """What is inside one run. All of its state is touched by the thread that runs the turns of its loop alone.

    Calls, sources, the control word and the reader of results have threads of their own. They leave word in the
    loop's inbox. ``stop`` asks the run to stop, ``note`` takes the reason of its end, or an error.
    """

    def __init__(
        self,
        broker: Broker,
        plan: RunPlan,
        domain: str,
        stop: Callable[[], None],
        note: Callable[[str, Any], object],
    ) -> None:
        self._plan = plan
        self.stop = stop
        self._note = note
        self._state = StopState()
        self._stopping: Stopping | None = None
        self._called: TaskRun | None = None  # the task that the leader calls
        self._told: list[tuple[str, Any]] = []  # what died, and was raised
        self.loop = EngineLoop()
        clock = LeaseClock()
        self._dues = Dues(self.loop, clock)
        leases = Leases(clock, broker.limits.longest_lease, self._dues.notify_at)
        self.parts = RunParts(broker, plan, domain, self, self.loop, leases, self._dues.notify_at)
        self._ending = RunEnding(self.parts, self._state, self._guarded)
        self._callees = self.parts.fed[::-1]

    def tell(self, kind: str) -> None:
        """Have the run stop, or stop in another way; from any thread."""
        self.loop.tell(partial(self.command, kind))

    @property
    def has_left_undone(self) -> bool:
        """Whether a phase of the stop ran out of time."""
        return self._stopping is not None and bool(self._stopping.left_undone)

    # The threads

    def run_to_the_end(self) -> None:
        """Start all parts, and return when they have ended; raises nothing."""
        parts = self.parts
        try:
            if parts.stream is not None:
                parts.stream.start()
            if parts.control is not None:
                parts.control.start()
            for source in parts.sources:
                source.start()
            self._dues.begin(parts, self)
        except BaseException as error:
            self.command("dead", ("run", error))
        try:
            self._lead_to_the_end()
            self._ending.end_parts()
        except BaseException as error:
            self._note("dead", ("run", error))
        finally:
            self._note_the_rest()
            if parts.stream is not None:
                parts.stream.end()
            try:
                parts.exchange.close()
            finally:
                self.loop.close()

    def _note_the_rest(self) -> None:
        """Note what died, or was raised, when no turn followed any more."""
        self._note_errors()
        for kind, detail in self._told:
            self._note(kind, detail)

    def _lead_to_the_end(self) -> None:
        crew = self.parts.crew
        try:
            crew.start()
        except BaseException as error:  # the machine has no more threads: this one stops the run
            self.command("dead", ("run", error))
            self.lead()
        while not crew.wait(SUPERVISOR_SECONDS):
            pass
        if self._stopping is None or not self._stopping.is_over:  # the crew died
            for stop in (self._ending.begin_no_more, self._ending.begin_to_settle):
                self._guarded("stop", stop)

    # The leader's turns

    def lead(self) -> None:
        """Do everything that touches the state of the run, until its end or until another thread leads."""
        crew = self.parts.crew
        leadership = crew.leadership
        with log_writer.deferring(0.0, lambda: leadership.is_calling):
            if self._called is not None:  # its call keeps the former leader
                self._called.here.kept_leader()
                self._called = None
            self.parts.make_dirty()  # who may call a task depends on the thread that leads
            self._run_turns()
        crew.close()

    def _run_turns(self) -> None:
        seconds, turn = 0.0, self.loop.turn
        stages = [(f"task {task.task.name}", task.take_in) for task in self.parts.fed]
        stages += [(f"task {task.task.name}", task.go_on) for task in self.parts.tasks.values()]
        stages += [("settling", self._apply_effects)]
        while self._stopping is None or not self._stopping.is_over:
            turn(seconds)
            for part, stage in stages:
                self._guarded(part, stage)
            if self.loop.errors:
                self._note_errors()
            seconds = self._seconds_to_wait()
            if self._stopping is None and self._make_calls():
                seconds = 0.0

    def _make_calls(self) -> bool:
        """Make calls that are short, those of the last tasks first; return whether some were made.

        Raises ``LostBatonError`` if one of them was not: another thread leads then.
        """
        has_called = False
        for task in self._callees:
            now = clocks.monotonic()
            if task.lanes.ready and task.here.may_call(now):
                try:
                    has_called |= self._make_calls_of(task, now)
                except PartError as error:
                    self.loop.errors.append(error)
                    return True
        return has_called

    def _make_calls_of(self, task: TaskRun, now: float) -> bool:
        """Make calls of one task for a slice of time."""
        until, measures, context = now + SLICE_SECONDS, task.here.measures, None
        lease_now, run_here, may_call = self.parts.leases.clock.now(), task.side.run_here, True
        has_called = False
        while may_call and now < until and (call := task.here.next_call(lease_now, now)) is not None:
            if context is None:
                context = task.here.context()
            self._called = task
            try:
                made = self.parts.crew.call(run_here, call, context, measures)
            except LostBatonError as lost:
                outcomes, ended, _ = lost.args[0] or (None, now, 0.0)
                self.loop.tell(partial(task.here.ended_elsewhere, call, outcomes, ended))
                raise
            except Exception as error:  # nobody could watch: it has not begun
                self._called = None
                task.not_begun_here(call)
                raise PartError("crew", error) from error
            self._called = None
            outcomes, now, waited = made
            may_call, has_called = task.here.ended(call, outcomes, now, waited), True
        return has_called or task.has_uncalled

    def _guarded(self, part: str, stage: Callable[[], object]) -> None:
        """Do one stage; what it raises ends the run in good order."""
        try:
            stage()
        except BaseException as error:
            self.loop.errors.append(error if isinstance(error, PartError) else PartError(part, error))

    def _note_errors(self) -> None:
        errors, self.loop.errors = self.loop.errors, []
        for error in errors:
            part, cause = "run", error
            if isinstance(error, PartError) and error.__cause__ is not None:
                part, cause = error.part, error.__cause__
            self.command("dead", (part, cause))

    def _seconds_to_wait(self) -> float:
        """Return the seconds for which the next turn may wait; during a stop, go on with it."""
        seconds = math.inf
        if self._stopping is not None:
            try:
                seconds = self._stopping.step(clocks.monotonic())
            except BaseException as error:
                self.loop.errors.append(error)
                return 0.0
        return 0.0 if any(task.state.is_dirty for task in self.parts.tasks.values()) else seconds

    def _apply_effects(self) -> None:
        effects, task_of = self.parts.settling.effects, self.parts.task_of
        while effects:
            match effects.popleft():
                case Settled(helds):
                    task_of(helds[0]).settled(helds)
                case Lost(held):
                    task_of(held).lost(held)
                case Refused(held):
                    task_of(held).outcomes.refused(held)

    # Stop and failure

    def command(self, kind: str, detail: Any = None) -> None:
        """Do what the run is told: begin to stop, or stop in another way; in the engine's turn."""
        if self._stopping is None:
            self._note(kind, detail)
            self._state.is_cut = kind not in ("signal", "drained")
            self._dues.is_stopping = True
            self._stopping = self._ending.stopping(self._plan.stop_timeout)
            return
        if kind in ("signal", "dead", "raised"):
            self._note(kind, detail)
        self._state.is_hurried |= kind == "signal"
        self._state.is_cut |= kind in ("signal", "stop", "interrupt")

    def died(self, part: str, error: BaseException) -> None:
        """Take note of a part that cannot go on; from any thread."""
        self._tell_of("dead", (part, error))
        with suppress(BaseException):  # a log handler may be what died
            logger.debug("%s died", part, exc_info=error)

    def raised(self, error: BaseException) -> None:
        """Take note of an error of a task that ends the run; from any thread."""
        self._tell_of("raised", error)

    def _tell_of(self, kind: str, detail: Any) -> None:
        self._told.append((kind, detail))
        self.loop.tell(partial(self.command, kind, detail))

    def crew_died(self, error: BaseException) -> None:
        """Take note that no thread leads any more; in the thread that led last."""
        self._note("dead", ("run", error))
        self.parts.crew.close()
