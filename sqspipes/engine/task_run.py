"""TaskRun: the hub of one task of a run. It applies what the stages return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sqspipes.brokers.base import Limits
from sqspipes.calls.held import Held, Origin, Parcel
from sqspipes.calls.outcome import Call, Outcome
from sqspipes.engine.admission import Admission
from sqspipes.engine.call_threads import CallThreads
from sqspipes.engine.calling import CallSide
from sqspipes.engine.calls_here import CallsHere
from sqspipes.engine.incoming import Incoming
from sqspipes.engine.outcomes import Outcomes
from sqspipes.engine.overdue import BLOCKED_SECONDS, Overdue
from sqspipes.engine.scheduling import Scheduling
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.stream import Stream
from sqspipes.engine.task_state import TaskState
from sqspipes.events import LeaseLost
from sqspipes.support import clocks
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.task import Task

if TYPE_CHECKING:
    from sqspipes.engine.async_calls import AsyncCalls

#: Calls are given to threads ahead of the slots that are free: one for so many slots, and one.
SLOTS_PER_CALL_AHEAD = 4


class TaskRun:
    """One task in one run; all of it is called in the engine's turn."""

    def __init__(
        self, plan: Plan, levels: Sequence[int], shared: EngineShared, limits: Limits, stream: Stream | None
    ) -> None:
        task = plan.task
        self.plan = plan
        self.task: Task = task
        self.state = TaskState(task, shared.gate)
        self.counts, self.lanes = self.state.counts, self.state.lanes
        self._limits, self._shared, self._settling, self._stream = limits, shared, shared.settling, stream
        linger = limits.linger if task.linger is None else task.linger
        self.admission = Admission(
            self.state, [] if task.is_source else levels, shared.requests, limits, shared.leases.clock, linger
        )
        self.side = CallSide(
            plan,
            self,
            shared.loop.tell,
            shared.loop.tell_soon,
            shared.leases.clock,
            shared.message_bytes,
            linger,
            stream,
            shared.run_loop,
            shared.died,
            shared.about_to_wait,
            shared.listeners.hears_outputs,
        )
        self._incoming = Incoming(task, shared, limits, linger)
        self._scheduling = Scheduling(self.state, shared)
        self.outcomes = Outcomes(self.state, shared, limits)
        self._callers = self._make_callers()
        self._slots = task.workers
        self.here = CallsHere(
            self.state, self._scheduling, self.abandoned, is_allowed=self._may_be_called_by_leader(stream)
        )
        self._ahead = self._calls_ahead()
        self._settling_free = limits.entries * limits.requests_in_flight
        self._tell_paused: Callable[[], object] | None = None
        self._overdue = Overdue(task.name, task.lease)

    def _make_callers(self) -> CallThreads | AsyncCalls:
        task, step, shared = self.task, self.plan.step, self._shared
        if self.plan.kind.is_async:
            # With asyncio, which is slow to import.
            from sqspipes.engine.async_calls import AsyncCalls

            return AsyncCalls(
                task.domain, task.name, task.workers, self.side, shared.run_loop.get(), shared.died
            )
        leave = step.leave if step is not None else lambda: None
        name, hasten = f"{task.domain} {task.name}", shared.loop.hasten
        return CallThreads(name, task.workers, self.side.run, shared.died, leave, hasten)

    def _may_be_called_by_leader(self, stream: Stream | None) -> bool:
        """Say whether short calls may be made by the thread that leads.

        Not where a task is to be called by one thread for the whole run, as one with a single worker or a step; nor
        where a call produces in the middle or waits for a reader.
        """
        kind, task = self.plan.kind, self.task
        if kind.is_async or kind.yields or self.plan.step is not None:
            return False
        return task.workers > 1 and stream is None and not task.is_source

    def _calls_ahead(self) -> int:
        """Return how many calls may wait for a thread.

        None where it matters when a call begins: a rate, levels, a message that has the loop of its own.
        """
        task = self.task
        if self.plan.kind.is_async or task.priorities > 1 or task.rate is not None or task.batch is not None:
            return 0
        return task.workers // SLOTS_PER_CALL_AHEAD + 1

    # A turn

    def take_in(self) -> None:
        """Take in what was received since the last turn."""
        for answer in self.admission.take_answers():
            received, _ = answer
            taken = self._incoming.take(received)
            for held in taken.new:
                if held.suspect:
                    self.state.count_suspect(held, 1)
                if self.state.is_stopping:
                    self._settling.give_back(held)
                else:
                    self.lanes.add(held)
            self.admission.learn(answer, is_suspicious=taken.is_suspicious, is_grouped=taken.is_grouped)
            self._set_floor()
            self.state.is_dirty = True

    def go_on(self) -> None:
        """End the calls that have ended, begin what may begin, and receive what there is room for."""
        self._end_uncalled()
        if self.state.ended:
            ended, self.state.ended = self.state.ended, []
            self.state.is_dirty = True
            self.state.end(*[call for call, _, _ in ended])
            self.outcomes.end(ended)
        if self._tell_paused is not None and not (self._limits.clean_interrupt and self.admission.has_polls):
            self._tell_paused()
            self._tell_paused = None
        if not (self.state.is_dirty or self.admission.is_pause_over):
            return
        self.state.is_dirty = False
        self._begin_calls()
        unsettled = max(0, self.state.settling - self._settling_free)
        self.admission.invite(unsettled, is_shut=self._shared.gate.shut or self._is_about_to_shut)
        self._set_floor()

    @property
    def _is_about_to_shut(self) -> bool:
        """Whether the next call shuts the gate, and nothing keeps it from beginning now."""
        scheduling = self._scheduling
        may_begin = self.state.calls < self._slots and scheduling.allowed_at is None
        return may_begin and scheduling.is_suspect_next

    def wake(self, now: float) -> float | None:
        """Look at what is due at a time of the lease clock; return when more is due."""
        self.state.is_dirty |= self.lanes.wake(now) > 0 or self._scheduling.wake(now)
        dues = [due for due in (self.lanes.next_wake(), self._scheduling.allowed_at) if due is not None]
        return min(dues, default=None)

    def watch(self) -> float | None:
        """Warn of calls that run for long; return the seconds until there may be another one to warn of."""
        now = clocks.monotonic()
        running = {held: began for held, began in self.state.running.items() if began < now}
        overdue = self._overdue.look(running, now)
        blocked = self._callers.watch(now) if running else None
        # A call that begins later is looked at in time, too.
        seconds = [self._overdue.first if overdue is None else overdue]
        return min(seconds if blocked is None else [*seconds, blocked])

    def _set_floor(self) -> None:
        if self.task.strict and self.lanes.set_floor(self.admission.floor):
            self.state.is_dirty = True

    # Calls to begin

    def _begin_calls(self) -> None:
        """Give as many calls to threads as there are slots and ready lanes, unless the leader makes them."""
        if self.here.may_call(clocks.monotonic()):
            return
        begun: list[Call] = []
        now = self._shared.leases.clock.now()
        # Beside calls of leading threads none may wait for a thread: it would begin while all slots are taken.
        most = self._slots + (0 if self.here.count else self._ahead)
        while self._may_begin(most) and (call := self._scheduling.next_call(now)) is not None:
            begun.append(call)
        if begun:
            self._give(begun, now)
        self._end_uncalled()

    def _may_begin(self, most: int) -> bool:
        """Say whether one more call may begin; a suspect may not wait for a slot, as it would shut the gate."""
        calls = self.state.calls
        return calls < self._slots or (calls < most and not self._scheduling.is_suspect_next)

    def _give(self, begun: Sequence[Call], now: float) -> None:
        try:
            self._callers.give(begun)
        except BaseException:  # the machine has no more threads
            for call in begun:
                self.too_late(call)
            raise
        if self.plan.kind.is_async:
            self._shared.notify_at(now + BLOCKED_SECONDS)

    def _end_uncalled(self) -> None:
        """Give back or bury what scheduling found that cannot be called."""
        scheduling = self._scheduling
        if scheduling.to_give_back:
            dropped, scheduling.to_give_back = scheduling.to_give_back, []
            self.outcomes.give_back(dropped)
        if scheduling.unreadable:
            unreadable, scheduling.unreadable = scheduling.unreadable, []
            for held in unreadable:
                self.outcomes.bury_unreadable(held)

    @property
    def has_uncalled(self) -> bool:
        """Whether messages were found that cannot be called; the next turn gives them back or buries them."""
        return self._scheduling.has_uncalled

    def not_begun_here(self, call: Call) -> None:
        """Give back what the leader was to call and could not."""
        self.here.count -= 1
        self.too_late(call)

    # Word from calls

    def ended(self, call: Call, outcomes: Sequence[Outcome]) -> None:
        """Note how a call ended."""
        now, running = clocks.monotonic(), self.state.running
        seconds = [now - min(running[held], now) for held in call.messages]
        self.state.ended.append((call, outcomes, seconds))

    def too_late(self, call: Call) -> None:
        """Give back what a thread was to call: it had waited until its lease was lost."""
        self.state.end(call)
        self._drop_unbegun(call)
        self.state.is_dirty = True

    def abandoned(self, call: Call) -> None:
        """Note that a call ended because its run had given it up."""
        self.state.end(call)
        self.state.is_dirty = True

    def emitted(self, parcel: Parcel) -> None:
        """Send an output of a call that goes on."""
        self._settling.send([parcel])

    def offer(self, origin: Origin, value: Any) -> None:
        """Pass a result on to whoever iterates over the results of the run."""
        assert self._stream is not None
        self._settling.expect(origin)
        self._stream.offer(origin, value)

    def flush(self, origin: Origin, tell: Callable[[bool], None]) -> None:
        """Have a call told when all is safe that it emitted so far."""
        self._settling.flush(origin, tell)

    # Effects of settling

    def settled(self, helds: Sequence[Held]) -> None:
        """Free the room of messages that are not held any more."""
        for held in helds:
            if held.done:
                self.state.settling -= 1
                self.admission.unblocked += held.message.group is not None
            if held.suspect:
                self.state.count_suspect(held, -1)
                self._scheduling.forget(held)
        self.state.is_dirty = True

    def lost(self, held: Held) -> None:
        """Note a lease that another process may have by now."""
        held.lost = True
        self._shared.listeners.tell(LeaseLost(self.task.domain, self.task.name, held.message.id))
        self.outcomes.drop_lost(held)

    # Watching and stopping

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, running or settling here."""
        return self.lanes.empty and not self.state.calls and not self.state.settling

    def pause(self, is_paused: bool, tell: Callable[[], object]) -> None:
        """Receive nothing, or go on; ``tell`` is called once that is so.

        Polls that are open are cut where that leaves no trace; elsewhere what they still bring is taken in.
        """
        self.admission.is_paused = is_paused
        self._tell_paused = tell
        if is_paused and self._limits.clean_interrupt:
            self.admission.cut()
        self._set_floor()
        self.state.is_dirty = True

    def quiesce(self) -> None:
        """Begin no more calls, and give back what was not begun."""
        self.state.is_stopping = True
        self.admission.stop()
        for call in self._callers.take_back():
            self.state.end(call)
            self._drop_unbegun(call)
        self._callers.close()
        self.outcomes.give_back(self.lanes.drop_idle())

    def _drop_unbegun(self, call: Call) -> None:
        """Give back the messages of a call that never began, with what is behind them."""
        now = self._shared.leases.clock.now()
        for held in call.messages:
            if held.lane is not None and held is held.lane.messages[0]:
                self.lanes.park(held, now)
                self.outcomes.drop_lost(held)

    def abandon(self) -> list[str]:
        """Leave the messages of calls that still run to come back; return their ids."""
        self.side.abandon()
        self.outcomes.is_abandoned = True
        for held in self.state.running:
            self._shared.leases.drop(held)
        return [held.message.id for held in self.state.running]

    def join(self, deadline: float) -> None:
        """Wait for threads that are idle to end; after the end of the engine's turns."""
        self.side.close()
        self._callers.join(deadline)
