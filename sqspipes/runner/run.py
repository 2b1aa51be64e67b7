"""Run: builds the parts for the tasks asked for, and owns start, stop, drain and the failure of any part."""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from sqspipes.brokers.base import Broker
from sqspipes.errors import RunError
from sqspipes.runner import calls
from sqspipes.runner.background import Background
from sqspipes.runner.control import Control
from sqspipes.runner.dispatcher import Dispatcher
from sqspipes.runner.drain import Drain
from sqspipes.runner.gate import Gate
from sqspipes.runner.held import Held
from sqspipes.runner.intake import Intake
from sqspipes.runner.keeper import Keeper
from sqspipes.runner.leases import LeaseClock, Leases
from sqspipes.runner.outage import Outage
from sqspipes.runner.run_loop import RunLoop
from sqspipes.runner.settler import Settler
from sqspipes.runner.shared import Shared
from sqspipes.runner.source import Source
from sqspipes.runner.stream import Stream
from sqspipes.runner.summary import Counts, Summary
from sqspipes.support import clocks, lines
from sqspipes.tasks.plan import Plan, RunPlan, described

logger = lines.logger(__name__)

#: Seconds that settling gets at the end of a stop, whatever calls have left of ``stop_timeout``.
SETTLING_SECONDS = 5.0

#: Seconds that a poll stays open, at the least, while a run drains.
LAST_POLL_SECONDS = 1.0

#: Seconds between looks of a run that drains whether something lingers though no call is to come.
HASTEN_SECONDS = 0.05

#: Seconds between interrupts of open receives during a stop: one may have begun just after the last.
INTERRUPT_SECONDS = 0.1

#: Seconds that each step of a stop gets at a second signal: to settle, to cut receives, to give back what they took.
HURRIED_SECONDS = 0.15

#: Seconds for which receives are left open once all is settled: answers with what was given back are then not on
#: their way when they are cut.
SETTLED_SECONDS = 0.25

#: Seconds between looks at open receives during a stop: one whose answer is overdue is not waited for.
LOOK_SECONDS = 1.0


#: What ended a run, and the reason that its summary gives.
_REASONS = {"drained": "drained", "signal": "signal", "interrupt": "signal"}


class CountedTask(Protocol):
    """A task of a run, as its user may ask for it."""

    counts: Counts

    def oldest_call(self) -> float | None: ...


class Run(Background):
    """A run in this process. As a context manager it is stopped, in good order, when the block is left."""

    def __init__(self, broker: Broker, plan: RunPlan, domain: str) -> None:
        super().__init__(f"sqspipes run {domain}")
        self._broker = broker
        self._plan = plan
        self._domain = domain
        self._commands: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._reason = "stopped"
        self._cut = False  # receives that are open at a stop are cut, not let end
        self._hurried = False  # a second signal came: nothing is waited for
        self._outage = Outage(broker.url, broker.limits.longest_answer)
        self._build()

    def _build(self) -> None:
        leases = Leases(LeaseClock(), self._broker.limits.longest_lease, lambda due: self._keeper.tick(due))
        self._settler = Settler(
            self._broker,
            leases,
            self._outage,
            settled=lambda helds: self._of(helds[0]).settled(helds),
            lost=self._lose,
            refused=lambda held: self._of(held).refused(held),
            died=self._died,
        )
        steps = [plan.step for plan in self._plan.plans if plan.kind.is_async and plan.step is not None]
        self._loop = RunLoop(self._domain, self._died, [step.leave for step in steps])
        self._by_queue: dict[str, Dispatcher] = {}
        self.stream = (
            Stream(self._settler.safe, self._settler.forget, self._died)
            if self._plan.iterate is not None
            else None
        )
        shared = Shared(
            broker=self._broker,
            sizes=self._plan.sizes,
            leases=leases,
            settler=self._settler,
            gate=Gate(lambda: self._keeper.pump(), leases.clock.now, lambda due: self._keeper.tick(due)),
            loop=self._loop,
            stream=self.stream,
            died=self._died,
            raised=lambda error: self._commands.put(("raised", error)),
            tick=lambda due: self._keeper.tick(due),
            quiet=self._stir,
        )
        self._dispatchers = {
            plan.task.name: Dispatcher(plan, shared, streams=plan.task.name == self._plan.iterate)
            for plan in self._plan.plans
        }
        for dispatcher in self._dispatchers.values():
            self._by_queue.update(
                (dispatcher.task.queue(n), dispatcher) for n in range(dispatcher.task.priorities)
            )
        self._sources = [self._make_source(plan) for plan in self._plan.plans if plan.task.is_source]
        self._intakes = [
            Intake(
                self._dispatchers[plan.task.name],
                self._plan.levels[plan.task.name],
                self._broker,
                self._outage,
                leases.clock,
                self._stir,
                self._died,
            )
            for plan in self._plan.plans
            if not plan.task.is_source
        ]
        self._drain: Drain | None = None
        if self._plan.drain is not None:
            seconds = None if self._plan.drain < 0 else self._plan.drain
            self._drain = Drain(self._broker, self._outage, self._queues(), seconds, self._progress)
            self._shorten_polls(self._drain.between)
        if self._plan.polls is not None:
            self._shorten_polls(self._plan.polls)
        dispatchers = list(self._dispatchers.values())
        if not self._intakes:
            shared.heard.set()
        self._keeper = Keeper(
            dispatchers,
            leases,
            shared.gate,
            self._settler,
            self._outage,
            self._domain,
            self._lose,
            self._sources,
            shared.heard,
            self._died,
        )
        self._control = self._make_control(shared)

    def _make_control(self, shared: Shared) -> Control | None:
        plan = self._plan
        if plan.control_queue is None or plan.control_interval is None:
            return None
        return Control(
            self._broker,
            plan.control_queue,
            plan.control_interval,
            self._domain,
            [*self._intakes, *self._sources],
            self.stop,
            shared.heard,
            self._died,
            drains=plan.drain is not None,
        )

    def _make_source(self, plan: Plan) -> Source:
        return Source(
            plan,
            self._dispatchers[plan.task.name],
            self._plan.priority,
            drain=self._plan.drain is not None,
            ended=self._stir,
            gave_up=lambda error: self._commands.put(("raised", error)),
            died=self._died,
            loop=self._loop,
        )

    # What users do with it

    @property
    def summary(self) -> Summary:
        """The counts so far, and the reason once the run is over."""
        return self._summed(self._counted)

    @property
    def by_task(self) -> dict[str, Summary]:
        """The counts so far of each task of the run, in the order of the pipe."""
        return {name: self._summed([name]) for name in self._counted}

    @property
    def _counted(self) -> Mapping[str, CountedTask]:
        return self._dispatchers

    def _summed(self, tasks: Collection[str]) -> Summary:
        counts = [task.counts for name, task in self._counted.items() if name in tasks]
        counts += [source.counts for source in self._sources if source.task in tasks]
        return sum(counts, Counts()).summary(self._reason_or(self._reason))

    @property
    def outage(self) -> str | None:
        """What the broker's last failed request said, while it does not answer."""
        return self._outage.error

    def oldest_call(self, task: str) -> float | None:
        """Return the seconds that a task's oldest running call has been running here."""
        ages = [one.oldest_call() for name, one in self._counted.items() if name == task]
        ages += [source.oldest_call() for source in self._sources if source.task == task]
        return max((age for age in ages if age is not None), default=None)

    def last_poll(self, queue_name: str) -> float | None:
        """Return when a queue was last received from here (monotonic clock), or None."""
        levels = [level for intake in self._intakes for level in intake.levels if level.queue == queue_name]
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

    # Starting and supervising

    def start(self) -> Run:
        """Start all parts."""
        tasks = ", ".join(map(described, self._plan.plans))
        logger.info("%s runs on %s: %s", self._domain, self._broker.url, tasks)
        self._begin()
        return self

    def _ask(self, what: str) -> None:
        self._commands.put((what, None))

    def _supervise(self) -> None:
        try:
            if self.stream is not None:
                self.stream.start()
            self._keeper.start()
            if self._control is not None:
                self._control.start()
            for intake in self._intakes:
                intake.start()
            for source in self._sources:
                source.start()
            kind, detail = self._wait_for_end()
        except BaseException as error:
            kind, detail = "dead", ("run", error)
        try:
            self._end(kind, detail)
        except BaseException as error:
            self._note("dead", ("run", error))
            self._break_off()
        finally:
            self._note_the_rest()
            if self.stream is not None:
                self.stream.end()

    def _wait_for_end(self) -> tuple[str, Any]:
        drain = self._drain
        # Also beside a process that looks whether all is through.
        draining = drain is not None or self._plan.polls is not None
        while True:
            pauses = [] if drain is None else [drain.pause()]
            if draining:
                pauses.append(HASTEN_SECONDS if self._settling else HASTEN_SECONDS * 5)
            try:
                command = self._commands.get(timeout=min(pauses, default=None))
            except queue.Empty:
                command = ("stir", None)
            if command[0] != "stir":
                return command
            if draining and self._settling and not self._calling:
                self._settler.hasten()
            if drain is not None:
                if drain.done(self._idle()):
                    return ("drained", None)
                self._shorten_polls(LAST_POLL_SECONDS if drain.seen_empty else drain.between)

    def _shorten_polls(self, seconds: float) -> None:
        """Keep polls short where they cannot be cut without a trace, so that the end need not wait for them."""
        if not self._broker.limits.clean_interrupt:
            for intake in self._intakes:
                intake.wait = min(self._broker.limits.longest_wait, max(LAST_POLL_SECONDS, seconds))

    def _idle(self) -> bool:
        calling = any(source.live for source in self._sources)
        idle = all(dispatcher.idle for dispatcher in self._dispatchers.values())
        return not calling and idle and self._settler.quiet

    @property
    def _calling(self) -> bool:
        """Whether calls are under way, or to come: what lingers may get company."""
        working = any(
            dispatcher.running or dispatcher.lanes.ready for dispatcher in self._dispatchers.values()
        )
        return working or any(source.live for source in self._sources)

    @property
    def _settling(self) -> bool:
        return not self._settler.quiet or any(d.settling for d in self._dispatchers.values())

    def _progress(self) -> int:
        summary = self.summary
        return summary.done + summary.failed + summary.dead

    def _queues(self) -> list[str]:
        """The queues that are served, upstream first."""
        plans = sorted(self._plan.plans, key=lambda plan: plan.task.index)
        return [
            plan.task.queue(n)
            for plan in plans
            if not plan.task.is_source
            for n in self._plan.levels[plan.task.name]
        ]

    # Stopping

    def _end(self, kind: str, detail: Any) -> None:
        """Stop in good order: no new work, running calls get their time, what was not started goes back.

        Receives are cut last: a server gives what becomes visible to one that was cut, too, and hides it for a lease.
        """
        self._note(kind, detail)
        self._cut = kind not in ("signal", "drained")
        deadline = clocks.monotonic() + self._plan.stop_timeout
        if self._control is not None:
            self._control.stop()
        for source in self._sources:
            source.stop()
        for intake in self._intakes:
            intake.stop()
        for dispatcher in self._dispatchers.values():
            dispatcher.quiesce()
        if self.stream is not None:
            self.stream.close()
        if self._broker.limits.clean_interrupt:
            self._cut = True
            self._broker.interrupt()
        self._wait_for_calls(deadline)
        self._abandon()
        settled = self._settler.settle(self._time_to_settle())
        self._wait_for_receives()
        self._keeper.stop()
        settled &= self._settler.close(self._time_to_settle())
        # A generator that was given up is closed as soon as it yields.
        until = max(clocks.monotonic() + HURRIED_SECONDS, 0.0 if self._hurried else deadline)
        for dispatcher in self._dispatchers.values():
            dispatcher.executor.join(until)
        self._loop.leave(clocks.monotonic() if self._hurried else deadline)
        self._loop.close(clocks.monotonic() + HURRIED_SECONDS)
        if not settled:
            logger.warning("not everything could be settled in time: what is left comes back after its lease")
        summary = self.summary
        logger.info("%s: %s, %s", self._domain, summary.reason, Counts.of(summary))

    def _wait_for_calls(self, deadline: float) -> None:
        """Wait for running calls, until ``deadline`` or until told to hurry."""
        while not self._hurried and (left := deadline - clocks.monotonic()) > 0:
            calling = any(source.live for source in self._sources)
            if not calling and not any(dispatcher.running for dispatcher in self._dispatchers.values()):
                return
            self._hear(left)

    def _wait_for_receives(self) -> None:
        """Wait for open receives, cut or let end."""
        hurried_until = math.inf
        if self._cut and not self._broker.limits.clean_interrupt:
            self._let_receives_end(SETTLED_SECONDS)
        while any(intake.open for intake in self._intakes) and clocks.monotonic() < hurried_until:
            if self._hurried:
                hurried_until = min(hurried_until, clocks.monotonic() + HURRIED_SECONDS)
            if self._cut:
                self._broker.interrupt()
            self._hear(INTERRUPT_SECONDS if self._cut else LOOK_SECONDS)

    def _let_receives_end(self, seconds: float) -> None:
        until = clocks.monotonic() + seconds
        while not self._hurried and any(intake.open for intake in self._intakes):
            if (left := until - clocks.monotonic()) <= 0:
                return
            self._hear(left)

    def _hear(self, seconds: float) -> None:
        """Wait for a command during a stop, and note what it changes."""
        with suppress(queue.Empty):
            kind, detail = self._commands.get(timeout=seconds)
            if kind in ("signal", "dead", "raised"):
                self._note(kind, detail)
            self._hurried |= kind == "signal"
            self._cut |= kind in ("signal", "stop", "interrupt")

    def _time_to_settle(self) -> float:
        return clocks.monotonic() + (HURRIED_SECONDS if self._hurried else SETTLING_SECONDS)

    def _break_off(self) -> None:
        """End every part, after a stop in good order failed: what is still held comes back after its lease."""
        stops: list[Callable[[], object]] = [] if self._control is None else [self._control.stop]
        stops += [source.stop for source in self._sources]
        stops += [intake.stop for intake in self._intakes]
        for dispatcher in self._dispatchers.values():
            stops += [dispatcher.quiesce, dispatcher.executor.close]
        self._cut = True
        stops += [self._abandon, partial(self._settler.settle, 0.0), self._wait_for_receives]
        stops += [self._keeper.stop, partial(self._settler.close, 0.0), partial(self._loop.close, 0.0)]
        for stop in stops:
            with suppress(BaseException):
                stop()

    def _note_the_rest(self) -> None:
        """Note what died when nobody waited for it any more: while messages were settled."""
        with suppress(queue.Empty):
            while True:
                kind, detail = self._commands.get_nowait()
                if kind in ("dead", "raised"):
                    self._note(kind, detail)

    def _note(self, kind: str, detail: Any) -> None:
        """Keep the reason of the end, and the first error."""
        if kind == "dead":
            part, cause = detail
            said = f"{calls.name_of(cause)}: {calls.said(cause)}"
            self._fail(RunError(f"{part} died: {said}", part=part), cause)
        elif kind == "raised" and self._error is None:
            self._error = detail
        elif kind in _REASONS:
            self._reason = _REASONS[kind]

    def _abandon(self) -> None:
        for name, dispatcher in self._dispatchers.items():
            for id in dispatcher.abandon():
                logger.warning("%s %s did not end in time: it comes back after its lease", name, id)

    def _fail(self, error: RunError, cause: BaseException) -> None:
        if self._error is None:
            error.__cause__ = cause
            self._error = error
            with suppress(BaseException):  # a log handler may be what died
                logger.error("%s ends: %s", self._domain, error)

    # What the parts tell

    def _of(self, held: Held) -> Dispatcher:
        return self._by_queue[held.delivery.queue]

    def _lose(self, held: Held) -> None:
        self._of(held).lost(held)

    def _died(self, part: str, error: BaseException) -> None:
        self._commands.put(("dead", (part, error)))
        with suppress(BaseException):  # a log handler may be what died
            logger.debug("%s died", part, exc_info=error)

    def _stir(self) -> None:
        self._commands.put(("stir", None))
