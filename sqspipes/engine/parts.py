"""RunParts: the parts of one run, built for its plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from sqspipes.brokers.adapter import open_exchange
from sqspipes.brokers.base import Broker
from sqspipes.calls.held import Held, Origin
from sqspipes.calls.run_loop import RunLoop
from sqspipes.engine.control import Control
from sqspipes.engine.crew import Crew
from sqspipes.engine.draining import Draining
from sqspipes.engine.gate import Gate
from sqspipes.engine.leases import Leases
from sqspipes.engine.loop import EngineLoop
from sqspipes.engine.requests import Requests
from sqspipes.engine.settling import Settling
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.source import Source
from sqspipes.engine.stream import Stream
from sqspipes.engine.task_run import TaskRun
from sqspipes.summary import Counts
from sqspipes.support.listeners import Listeners
from sqspipes.tasks.plan import Plan, RunPlan

#: Seconds that a poll stays open, at the least, while a run drains.
LAST_POLL_SECONDS = 1.0

#: Seconds for which the control word's thread waits for a task to be paused, at most: in an outage polls take long.
PAUSE_SECONDS = 5.0


class Owner(Protocol):
    """The run that the parts are of. ``lead`` and ``crew_died`` are called by its crew."""

    def lead(self) -> None: ...

    def crew_died(self, error: BaseException) -> None: ...

    def stop(self) -> None: ...

    def command(self, kind: str, detail: Any = None) -> None:
        """Begin to stop, or stop in another way; in the engine's turn."""

    def died(self, part: str, error: BaseException) -> None:
        """Take note of a part that cannot go on; from any thread."""

    def raised(self, error: BaseException) -> None:
        """Take note of an error of a task that ends the run; from any thread."""


class RunParts:
    """The parts of one run. ``notify_at`` has the engine look at a time of the lease clock."""

    def __init__(
        self,
        broker: Broker,
        plan: RunPlan,
        domain: str,
        owner: Owner,
        loop: EngineLoop,
        leases: Leases,
        notify_at: Callable[[float], None],
    ) -> None:
        self.plan = plan
        self.limits = limits = broker.limits
        self._owner = owner
        self.loop = loop
        self.crew = Crew(f"sqspipes crew {domain}", owner.lead, owner.crew_died)
        self.exchange = open_exchange(broker, loop, f"sqspipes exchange {domain}")
        self.listeners = Listeners(plan.listeners)
        self.requests = Requests(self.exchange, loop, broker.url, limits, self.listeners.tell)
        self.leases = leases
        self.settling = Settling(self.requests, leases, limits, self.listeners.tell)
        steps = [one.step for one in plan.plans if one.kind.is_async and one.step is not None]
        self.run_loop = RunLoop(domain, owner.died, [step.leave for step in steps])
        self.stream: Stream | None = None
        if plan.iterate is not None:
            self.stream = Stream(self._tell_safe, self._tell_forget, owner.died)
        self.shared = self._shared(notify_at)
        self.tasks = {one.task.name: self._task(one) for one in plan.plans}
        self._task_of_queue = {
            task.task.queue(number): task for task in self.tasks.values() for number in range(task.task.priorities)
        }  # fmt: skip
        self.sources = [self._source(task) for task in self.tasks.values() if task.task.is_source]
        self.fed = [task for task in self.tasks.values() if not task.task.is_source]  #: those with queues
        if not self.fed:
            self.shared.heard.set()
        self.drains = self._draining()
        if plan.polls is not None:
            self.shorten_polls(plan.polls)
        self.control = self._control(broker, domain)

    def _shared(self, notify_at: Callable[[float], None]) -> EngineShared:
        owner = self._owner
        return EngineShared(
            loop=self.loop,
            requests=self.requests,
            settling=self.settling,
            leases=self.leases,
            gate=Gate(self.make_dirty, self.leases.clock.now, notify_at),
            run_loop=self.run_loop,
            sizes=self.plan.sizes,
            message_size=self.limits.message_bytes,
            died=owner.died,
            raised=owner.raised,
            notify_at=notify_at,
            about_to_wait=self.crew.about_to_wait,
            listeners=self.listeners,
        )

    def _task(self, plan: Plan) -> TaskRun:
        name = plan.task.name
        stream = self.stream if name == self.plan.iterate else None
        return TaskRun(plan, self.plan.levels[name], self.shared, self.limits, stream)

    def _source(self, task: TaskRun) -> Source:
        return Source(
            task.plan,
            task.side,
            self.plan.priority,
            drain=self.plan.drain is not None,
            ended=partial(self.loop.tell, lambda: None),
            gave_up=self._owner.raised,
            died=self._owner.died,
            loop=self.run_loop,
        )

    def _draining(self) -> Draining | None:
        plan = self.plan
        if plan.drain is None:
            return None
        seconds = None if plan.drain < 0 else plan.drain
        upstream_first = sorted(self.fed, key=lambda task: task.task.index)
        queues = [level.queue for task in upstream_first for level in task.admission.levels]
        drains = Draining(self.requests, self.limits, queues, seconds, self._progress, lambda: self.is_idle)
        self.shorten_polls(drains.between)
        return drains

    def _control(self, broker: Broker, domain: str) -> Control | None:
        plan = self.plan
        if plan.control_queue is None or plan.control_interval is None:
            return None
        parts = [_PausableTask(task, self.loop, self.crew) for task in self.fed]
        return Control(
            broker,
            plan.control_queue,
            plan.control_interval,
            domain,
            [*parts, *self.sources],
            self._owner.stop,
            self.shared.heard,
            self._owner.died,
            drains=plan.drain is not None,
        )

    # What they do together

    def task_of(self, held: Held) -> TaskRun:
        """Return the task that holds a message."""
        return self._task_of_queue[held.delivery.queue]

    def make_dirty(self) -> None:
        """Have every task look whether it may begin something."""
        for task in self.tasks.values():
            task.state.is_dirty = True

    def shorten_polls(self, seconds: float) -> None:
        """Keep polls short where they cannot be cut without a trace, so that the end need not wait for them."""
        if not self.limits.clean_interrupt:
            for task in self.fed:
                task.admission.wait = min(self.limits.longest_wait, max(LAST_POLL_SECONDS, seconds))

    def cut_receives(self) -> None:
        """End the receives that are open."""
        for task in self.fed:
            task.admission.cut()

    @property
    def counts(self) -> Counts:
        """What all of them have done."""
        counts = [task.counts for task in self.tasks.values()] + [source.counts for source in self.sources]
        return sum(counts, Counts())

    @property
    def has_calls(self) -> bool:
        """Whether calls are under way."""
        has_live = any(source.live for source in self.sources)
        return has_live or any(task.state.calls for task in self.tasks.values())

    @property
    def is_calling(self) -> bool:
        """Whether calls are under way, or to come: what lingers may get company."""
        return self.has_calls or any(task.lanes.ready for task in self.tasks.values())

    @property
    def is_settling(self) -> bool:
        """Whether messages are held whose calls are over."""
        return not self.settling.all_is_safe or any(task.state.settling for task in self.tasks.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, and no call under way."""
        is_idle = all(task.is_idle for task in self.tasks.values())
        return is_idle and not any(source.live for source in self.sources) and self.settling.all_is_safe

    @property
    def is_receiving(self) -> bool:
        """Whether receives are open."""
        return any(task.admission.is_open for task in self.fed)

    def _progress(self) -> int:
        counts = self.counts
        return counts.done + counts.failed + counts.dead

    # What they tell, from any thread

    def _tell_safe(self, origin: Origin) -> None:
        self.loop.tell(partial(self.settling.safe, [origin]))

    def _tell_forget(self, origin: Origin) -> None:
        self.loop.tell(partial(self.settling.forget, origin))


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
