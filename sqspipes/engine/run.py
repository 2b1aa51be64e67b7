"""EngineRun: a run whose state one thread holds. It builds the parts, and owns start, stop, drain and failure."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqspipes.brokers.adapter import open_exchange
from sqspipes.brokers.base import Broker
from sqspipes.calls import error_text
from sqspipes.calls.held import Held, Origin
from sqspipes.calls.run_loop import RunLoop
from sqspipes.engine.background import Background
from sqspipes.engine.control import Control
from sqspipes.engine.crew import Crew, LostBatonError
from sqspipes.engine.draining import Draining
from sqspipes.engine.gate import Gate
from sqspipes.engine.leases import Leases
from sqspipes.engine.loop import EngineLoop, Timer
from sqspipes.engine.requests import PartError, Requests
from sqspipes.engine.settling import ACKS, CLEARS, EXTENDS, RELEASES, SENDS, Lost, Refused, Settled, Settling
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.source import Source
from sqspipes.engine.stopping import HURRIED_SECONDS, Phase, Stopping, StopState
from sqspipes.engine.stream import Stream
from sqspipes.engine.summary import Counts, Summary
from sqspipes.engine.task_run import TaskRun
from sqspipes.errors import RunError
from sqspipes.support import clocks, lines
from sqspipes.support.clocks import LeaseClock
from sqspipes.support.log_writer import log_writer
from sqspipes.tasks.plan import RunPlan, described

logger = lines.logger(__name__)

#: Seconds for which the leader makes calls of one task before it looks after everything else.
SLICE_SECONDS = 0.001

#: Seconds between two looks of the run's own thread whether the crew has ended.
SUPERVISOR_SECONDS = 60.0

#: Seconds for which the control word's thread waits for a task to be paused, at most: in an outage polls take long.
PAUSE_SECONDS = 1.0

#: Seconds for which the end of a run waits for a log handler that is behind.
LOG_SECONDS = 1.0


#: Seconds that a poll stays open, at the least, while a run drains.
LAST_POLL_SECONDS = 1.0

#: Seconds between looks of a run that drains whether something lingers though no call is to come.
HASTEN_SECONDS = 0.05

#: Seconds for which receives are left open once all is settled: answers with what was given back are then not on
#: their way when they are cut.
SETTLED_SECONDS = 0.25

#: Seconds between looks at open receives during a stop: one whose answer is overdue is not waited for.
LOOK_SECONDS = 1.0


#: What ended a run, and the reason that its summary gives.
_REASONS = {"drained": "drained", "signal": "signal", "interrupt": "signal"}


#: Seconds between two looks at what is due, at most: the lease clock may run ahead of the one that measures waits.
LONGEST_SLEEP = 60.0

#: Seconds without a message after which the log says what the run waits for.
QUIET_SECONDS = 10.0


class Run(Background):
    """A run in this process. As a context manager it is stopped, in good order, when the block is left.

    All of its state is touched by the thread that runs the turns of its loop alone.

    Calls, sources, the control word and the reader of results have threads of their own. They leave word in the
    loop's inbox.
    """

    def __init__(self, broker: Broker, plan: RunPlan, domain: str) -> None:
        super().__init__(f"sqspipes run {domain}")
        self._broker = broker
        self._plan = plan
        self._domain = domain
        self._reason = "stopped"
        self._state = StopState()
        self._stopping: Stopping | None = None
        self._stop_deadline = 0.0
        self._look_timer: Timer | None = None
        self._look_at = math.inf
        self._build_engine()

    def _build_engine(self) -> None:
        broker, plan, limits = self._broker, self._plan, self._broker.limits
        self._engine_loop = loop = EngineLoop()
        self._crew = Crew(f"sqspipes crew {self._domain}", self._lead, self._crew_died)
        self._called: TaskRun | None = None  # the task that the leader calls
        self._exchange = open_exchange(broker, loop, f"sqspipes exchange {self._domain}")
        self._requests = Requests(self._exchange, loop, broker.url, limits)
        leases = Leases(LeaseClock(), limits.longest_lease, self._notify_at)
        self._settling_part = Settling(self._requests, leases, limits)
        steps = [one.step for one in plan.plans if one.kind.is_async and one.step is not None]
        self._loop = RunLoop(self._domain, self._died, [step.leave for step in steps])
        self.stream = None
        if plan.iterate is not None:
            self.stream = Stream(self._tell_safe, self._tell_forget, self._died)
        self._shared = EngineShared(
            loop=loop,
            requests=self._requests,
            settling=self._settling_part,
            leases=leases,
            gate=Gate(self._gate_opened, leases.clock.now, self._notify_at),
            run_loop=self._loop,
            sizes=plan.sizes,
            message_size=limits.message_bytes,
            died=self._died,
            raised=self._raised,
            notify_at=self._notify_at,
            about_to_wait=self._about_to_wait,
        )
        self._tasks = {
            one.task.name: TaskRun(
                one,
                plan.levels[one.task.name],
                self._shared,
                limits,
                self.stream if one.task.name == plan.iterate else None,
            )
            for one in plan.plans
        }
        self._task_of_queue = {
            task.task.queue(number): task for task in self._tasks.values() for number in range(task.task.priorities)
        }  # fmt: skip
        self._sources = [self._source(task) for task in self._tasks.values() if task.task.is_source]
        self._fed = [task for task in self._tasks.values() if not task.task.is_source]
        self._callees = self._fed[::-1]
        if not self._fed:
            self._shared.heard.set()
        self._drains = self._draining()
        self._draining_polls = plan.polls is not None or self._drains is not None
        if plan.polls is not None:
            self._shorten_polls(plan.polls)
        self._control = self._control_part()

    def _source(self, task: TaskRun) -> Source:
        return Source(
            task.plan,
            task.side,
            self._plan.priority,
            drain=self._plan.drain is not None,
            ended=self._notify,
            gave_up=self._raised,
            died=self._died,
            loop=self._loop,
        )

    def _draining(self) -> Draining | None:
        plan = self._plan
        if plan.drain is None:
            return None
        seconds = None if plan.drain < 0 else plan.drain
        upstream_first = sorted(self._fed, key=lambda task: task.task.index)
        queues = [level.queue for task in upstream_first for level in task.admission.levels]
        drains = Draining(
            self._requests, self._broker.limits, queues, seconds, self._progress, lambda: self._is_idle
        )
        self._shorten_polls(drains.between)
        return drains

    def _control_part(self) -> Control | None:
        plan = self._plan
        if plan.control_queue is None or plan.control_interval is None:
            return None
        parts = [_PausableTask(task, self._engine_loop, self._crew) for task in self._fed]
        return Control(
            self._broker,
            plan.control_queue,
            plan.control_interval,
            self._domain,
            [*parts, *self._sources],
            self.stop,
            self._shared.heard,
            self._died,
            drains=plan.drain is not None,
        )

    # What users do with it

    @property
    def summary(self) -> Summary:
        """The counts so far, and the reason once the run is over."""
        return self._summed(self._tasks)

    @property
    def by_task(self) -> dict[str, Summary]:
        """The counts so far of each task of the run, in the order of the pipe."""
        return {name: self._summed([name]) for name in self._tasks}

    def _summed(self, tasks: Collection[str]) -> Summary:
        counts = [task.counts for name, task in self._tasks.items() if name in tasks]
        counts += [source.counts for source in self._sources if source.task in tasks]
        return sum(counts, Counts()).summary(self._reason_or(self._reason))

    @property
    def outage(self) -> str | None:
        """What the broker's last failed request said, while it does not answer."""
        return self._requests.error

    def oldest_call(self, task: str) -> float | None:
        """Return the seconds that a task's oldest running call has been running here."""
        ages = [one.state.oldest_call() for name, one in self._tasks.items() if name == task]
        ages += [source.oldest_call() for source in self._sources if source.task == task]
        return max((age for age in ages if age is not None), default=None)

    def last_poll(self, queue_name: str) -> float | None:
        """Return when a queue was last received from here (monotonic clock), or None."""
        levels = [level for task in self._fed for level in task.admission.levels if level.queue == queue_name]
        return next((level.last_poll for level in levels), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.join()
        if error is None:
            self.wait()

    def start(self) -> Run:
        """Start all parts."""
        tasks = ", ".join(map(described, self._plan.plans))
        logger.info("%s runs on %s: %s", self._domain, self._broker.url, tasks)
        self._begin()
        return self

    def _ask(self, what: str) -> None:
        self._engine_loop.tell(partial(self._command, what))

    # The engine's thread

    def _supervise(self) -> None:
        with log_writer.deferring(LOG_SECONDS):
            self._run_to_the_end()

    def _run_to_the_end(self) -> None:
        try:
            if self.stream is not None:
                self.stream.start()
            if self._control is not None:
                self._control.start()
            for source in self._sources:
                source.start()
            self._begin_to_look()
        except BaseException as error:
            self._command("dead", ("run", error))
        try:
            self._lead_to_the_end()
            self._end_parts()
        except BaseException as error:
            self._note("dead", ("run", error))
        finally:
            if self.stream is not None:
                self.stream.end()
            self._exchange.close()
            self._engine_loop.close()

    def _lead_to_the_end(self) -> None:
        try:
            self._crew.start()
        except BaseException as error:  # the machine has no more threads: this one stops the run
            self._command("dead", ("run", error))
            self._lead()
        while not self._crew.wait(SUPERVISOR_SECONDS):
            pass
        if self._stopping is None or not self._stopping.is_over:  # the crew died
            for stop in (self._begin_no_more, self._begin_to_settle):
                self._guarded("stop", stop)

    def _lead(self) -> None:
        """Do everything that touches the state of the run, until its end or until another thread leads."""
        with log_writer.deferring(0.0):
            if self._called is not None:  # its call keeps the former leader
                self._called.kept_leader()
                self._called = None
            for task in self._tasks.values():  # who may call a task depends on the thread that leads
                task.state.is_dirty = True
            self._run_turns()
        self._crew.close()

    def _run_turns(self) -> None:
        seconds = 0.0
        while self._stopping is None or not self._stopping.is_over:
            self._engine_loop.turn(seconds)
            for task in self._fed:
                self._guarded(f"task {task.task.name}", task.take_in)
            for task in self._tasks.values():
                self._guarded(f"task {task.task.name}", task.go_on)
            self._guarded("settling", self._apply_effects)
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
            if task.lanes.ready and task.is_called_here(now):
                try:
                    has_called |= self._make_calls_of(task, now)
                except PartError as error:
                    self._engine_loop.errors.append(error)
                    return True
        return has_called

    def _make_calls_of(self, task: TaskRun, now: float) -> bool:
        """Make calls of one task for a slice of time."""
        until, context, measures = now + SLICE_SECONDS, task.context_here(), task.measures
        lease_now, run_here, may_call = self._shared.leases.clock.now(), task.side.run_here, True
        has_called = False
        while may_call and now < until and (call := task.next_call_here(lease_now, now)) is not None:
            self._called = task
            try:
                made = self._crew.call(run_here, call, context, measures)
            except LostBatonError as lost:
                (made,) = lost.args
                self._engine_loop.tell(partial(task.ended_elsewhere, made))
                raise
            except Exception as error:  # nobody could watch: it has not begun
                self._called = None
                task.not_begun_here(call)
                raise PartError("crew", error) from error
            self._called = None
            may_call, now, has_called = task.ended_here(made), made.ended, True
        return has_called

    def _guarded(self, part: str, stage: Callable[[], object]) -> None:
        """Do one stage; what it raises ends the run in good order."""
        try:
            stage()
        except BaseException as error:
            self._engine_loop.errors.append(error if isinstance(error, PartError) else PartError(part, error))

    def _note_errors(self) -> None:
        errors, self._engine_loop.errors = self._engine_loop.errors, []
        for error in errors:
            part, cause = "run", error
            if isinstance(error, PartError) and error.__cause__ is not None:
                part, cause = error.part, error.__cause__
            self._command("dead", (part, cause))

    def _seconds_to_wait(self) -> float:
        """Return the seconds for which the next turn may wait; during a stop, go on with it."""
        seconds = math.inf
        if self._stopping is not None:
            try:
                seconds = self._stopping.step(clocks.monotonic())
            except BaseException as error:
                self._engine_loop.errors.append(error)
                return 0.0
        return 0.0 if any(task.state.is_dirty for task in self._tasks.values()) else seconds

    def _apply_effects(self) -> None:
        effects = self._settling_part.effects
        while effects:
            match effects.popleft():
                case Settled(helds):
                    self._task_of(helds[0]).settled(helds)
                case Lost(held):
                    self._task_of(held).lost(held)
                case Refused(held):
                    self._task_of(held).outcomes.refused(held)

    def _task_of(self, held: Held) -> TaskRun:
        return self._task_of_queue[held.delivery.queue]

    # What is due

    def _begin_to_look(self) -> None:
        self._quiet_at: float | None = self._shared.leases.clock.now() + QUIET_SECONDS
        self._notify_at(0.0)
        if self._draining_polls:
            self._engine_loop.tell(self._look_at_drain)

    def _notify_at(self, due: float) -> None:
        """Have the engine look at a time of the lease clock."""
        if due >= self._look_at:
            return
        self._look_at = due
        if self._look_timer is not None:
            self._look_timer.cancel()
        seconds = min(due - self._shared.leases.clock.now(), LONGEST_SLEEP)
        self._look_timer = self._engine_loop.later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        """Do all that is due: backoffs, leases, the gate, calls to warn of."""
        self._look_timer, self._look_at = None, math.inf
        gate, leases = self._shared.gate, self._shared.leases
        dues = [gate.look()]
        now = leases.clock.now()
        dues += [task.wake(now) for task in self._tasks.values()]
        dues.append(self._settling_part.extend_due())
        # A call that begins later is looked at in time, too: its lease will have to be extended before.
        watched = [task.watch() for task in self._tasks.values()] + [
            source.watch() for source in self._sources
        ]
        dues += [now + seconds for seconds in watched if seconds is not None]
        dues.append(self._watch_quiet(now))
        self._notify_at(min([due for due in dues if due is not None] + [now + LONGEST_SLEEP]))

    def _watch_quiet(self, now: float) -> float | None:
        if self._quiet_at is not None and self._shared.heard.is_set():
            self._quiet_at = None
        if self._quiet_at is not None and now >= self._quiet_at:
            self._quiet_at = None
            logger.info("waiting for put()")
        return self._quiet_at

    def _gate_opened(self) -> None:
        for task in self._tasks.values():
            task.state.is_dirty = True

    # Draining

    def _look_at_drain(self) -> None:
        if self._stopping is not None:
            return
        is_settling = not self._settling_part.all_is_safe or any(
            t.state.settling for t in self._tasks.values()
        )
        if is_settling and not self._is_calling:
            self._settling_part.hasten()
        due = self._engine_loop.now() + (HASTEN_SECONDS if is_settling else HASTEN_SECONDS * 5)
        drains = self._drains
        if drains is not None:
            due = min(due, drains.look())
            if drains.is_drained:
                self._command("drained")
                return
            self._shorten_polls(LAST_POLL_SECONDS if drains.has_seen_empty else drains.between)
        self._engine_loop.at(due, self._look_at_drain)

    def _shorten_polls(self, seconds: float) -> None:
        """Keep polls short where they cannot be cut without a trace, so that the end need not wait for them."""
        if not self._broker.limits.clean_interrupt:
            for task in self._fed:
                task.admission.wait = min(self._broker.limits.longest_wait, max(LAST_POLL_SECONDS, seconds))

    def _progress(self) -> int:
        summary = self.summary
        return summary.done + summary.failed + summary.dead

    @property
    def _is_idle(self) -> bool:
        is_calling = any(source.live for source in self._sources)
        is_idle = all(task.is_idle for task in self._tasks.values())
        return not is_calling and is_idle and self._settling_part.all_is_safe

    @property
    def _is_calling(self) -> bool:
        """Whether calls are under way, or to come: what lingers may get company."""
        is_working = any(task.state.calls or task.lanes.ready for task in self._tasks.values())
        return is_working or any(source.live for source in self._sources)

    # Stopping

    def _command(self, kind: str, detail: Any = None) -> None:
        """Do what the run is told: begin to stop, or stop in another way."""
        if self._stopping is None:
            self._note(kind, detail)
            self._state.is_cut = kind not in ("signal", "drained")
            deadline = self._plan.stop_timeout
            self._stopping = Stopping(self._phases(deadline), self._state)
            self._stop_deadline = clocks.monotonic() + deadline
            return
        if kind in ("signal", "dead", "raised"):
            self._note(kind, detail)
        self._state.is_hurried |= kind == "signal"
        self._state.is_cut |= kind in ("signal", "stop", "interrupt")

    def _note(self, kind: str, detail: Any) -> None:
        """Keep the reason of the end, and the first error."""
        if kind == "dead":
            part, cause = detail
            said = f"{error_text.name_of(cause)}: {error_text.said(cause)}"
            self._fail(RunError(f"{part} died: {said}", part=part), cause)
        elif kind == "raised" and self._error is None:
            self._error = detail
        elif kind in _REASONS:
            self._reason = _REASONS[kind]

    def _fail(self, error: RunError, cause: BaseException) -> None:
        if self._error is None:
            error.__cause__ = cause
            self._error = error
            with suppress(BaseException):  # a log handler may be what died
                logger.error("%s ends: %s", self._domain, error)

    def _phases(self, stop_timeout: float) -> list[Phase]:
        settling = self._settling_part
        return [
            Phase("calls", self._begin_no_more, self._calls_are_over, stop_timeout, 0.0, is_needed=False),
            Phase("sends", self._begin_to_settle, lambda: not settling.pending(SENDS)),
            Phase("acknowledgements", self._note_all_sent, lambda: not settling.pending(ACKS)),
            Phase("extensions", lambda: None, lambda: not settling.pending(EXTENDS)),
            Phase(
                "messages given back",
                settling.give_back_the_rest,
                lambda: not settling.pending(CLEARS, RELEASES),
            ),
            Phase(
                "the last answers",
                lambda: None,
                lambda: self._state.is_hurried or not self._is_to_be_cut or not self._is_receiving,
                SETTLED_SECONDS,
                is_needed=False,
            ),
            Phase(
                "receives",
                lambda: None,
                self._receives_are_over,
                math.inf,
                is_needed=False,
                look_seconds=LOOK_SECONDS,
            ),
            Phase("messages that came late", lambda: None, lambda: not settling.pending(CLEARS, RELEASES)),
        ]

    def _begin_no_more(self) -> None:
        stops = [] if self._control is None else [self._control.stop]
        stops += [source.stop for source in self._sources]
        stops += [task.quiesce for task in self._tasks.values()]
        stops += [] if self.stream is None else [self.stream.close]
        for stop in stops:
            self._guarded("stop", stop)
        if self._broker.limits.clean_interrupt:
            self._state.is_cut = True
            self._cut_receives()

    def _calls_are_over(self) -> bool:
        if any(source.live for source in self._sources):
            return False
        return not any(task.state.calls for task in self._tasks.values())

    def _begin_to_settle(self) -> None:
        for name, task in self._tasks.items():
            for id in task.abandon():
                logger.warning("%s %s did not end in time: it comes back after its lease", name, id)
        self._requests.hasten()
        self._settling_part.hurry()

    def _note_all_sent(self) -> None:
        self._shared.has_sent_all = True

    @property
    def _is_receiving(self) -> bool:
        return any(task.admission.is_open for task in self._fed)

    @property
    def _is_to_be_cut(self) -> bool:
        return self._state.is_cut and not self._broker.limits.clean_interrupt

    def _receives_are_over(self) -> bool:
        if self._state.is_cut:
            self._cut_receives()
        return not self._is_receiving

    def _cut_receives(self) -> None:
        for task in self._fed:
            task.admission.cut()

    def _end_parts(self) -> None:
        """End what has threads of its own, and say how the run ended."""
        self._settling_part.close()
        is_hurried = self._state.is_hurried
        now = clocks.monotonic()
        until = max(now + HURRIED_SECONDS, 0.0 if is_hurried else self._stop_deadline)
        for task in self._tasks.values():
            task.join(until)
        self._loop.leave(clocks.monotonic() if is_hurried else self._stop_deadline)
        self._loop.close(clocks.monotonic() + HURRIED_SECONDS)
        if self._stopping is not None and self._stopping.left_undone:
            logger.warning("not everything could be settled in time: what is left comes back after its lease")
        summary = self.summary
        logger.info("%s: %s, %s", self._domain, summary.reason, Counts.of(summary))

    # What the parts tell, from any thread

    def _died(self, part: str, error: BaseException) -> None:
        self._engine_loop.tell(partial(self._command, "dead", (part, error)))
        with suppress(BaseException):  # a log handler may be what died
            logger.debug("%s died", part, exc_info=error)

    def _raised(self, error: BaseException) -> None:
        self._engine_loop.tell(partial(self._command, "raised", error))

    def _crew_died(self, error: BaseException) -> None:
        self._note("dead", ("run", error))
        self._crew.close()

    def _about_to_wait(self) -> None:
        self._crew.about_to_wait()

    def _notify(self) -> None:
        self._engine_loop.tell(lambda: None)

    def _tell_safe(self, origin: Origin) -> None:
        self._engine_loop.tell(partial(self._settling_part.safe, [origin]))

    def _tell_forget(self, origin: Origin) -> None:
        self._engine_loop.tell(partial(self._settling_part.forget, origin))


class _PausableTask:
    """A task as the control word knows it; ``pause`` is called in the control word's thread."""

    def __init__(self, task: TaskRun, loop: EngineLoop, crew: Crew) -> None:
        self._task = task
        self._loop = loop
        self._crew = crew
        self._is_paused = False

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task.task.name

    def pause(self, paused: bool) -> bool:
        """Take in nothing more, or go on; return whether that is a change."""
        has_changed, self._is_paused = paused != self._is_paused, paused
        if has_changed:
            done = threading.Event()
            self._loop.tell(partial(self._task.pause, paused, done.set))
            if self._crew.is_started:
                done.wait(PAUSE_SECONDS)  # what is put once the log says so is not taken in
        return has_changed
