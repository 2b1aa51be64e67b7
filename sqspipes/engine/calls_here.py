"""CallsHere: the calls of one task that the thread which leads makes itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import Context

from sqspipes.calls.outcome import Call, Outcome
from sqspipes.engine.policy import MOST_COUNTED, CallPolicy
from sqspipes.engine.scheduling import Scheduling
from sqspipes.engine.task_state import TaskState
from sqspipes.support import clocks

#: Leading threads that call one task, beside as many threads of its own as it has workers: what a task keeps for each
#: thread that calls it, as a connection, stays bounded.
MOST_LEADERS_THAT_CALL = 2


class CallsHere:
    """Says which calls the leader may make, and notes how they end. All of it is called in the engine's turn.

    ``count`` has the calls under way of threads that lead, or led when the calls began. ``abandoned`` is told of a
    call that its run had given up. ``is_allowed``: short calls of the task may be made by the leader.
    """

    def __init__(
        self,
        state: TaskState,
        scheduling: Scheduling,
        abandoned: Callable[[Call], object],
        *,
        is_allowed: bool,
    ) -> None:
        self._state = state
        self._lanes = state.lanes
        self._scheduling = scheduling
        self._abandoned = abandoned
        self._slots = state.task.workers
        self._policy = CallPolicy() if is_allowed else None
        self._contexts: dict[int, Context] = {}  # of the leading threads that have called this task
        self.count = 0

    @property
    def measures(self) -> bool:
        """Whether it matters what of a call is computed, and what waited."""
        return self._policy is not None and self._policy.measures

    def may_call(self, now: float) -> bool:
        """Say whether the next call is to be made by the calling thread, which leads."""
        if self._policy is None or self._state.is_stopping or not self._policy.is_short(now):
            return False
        return threading.get_ident() in self._contexts or len(self._contexts) < MOST_LEADERS_THAT_CALL

    def next_call(self, now: float, begins: float) -> Call | None:
        """Return a call for the leader to make, or None; the times are those of ``Scheduling.next_call``.

        A call that has ended takes no slot, though it counts until the next turn: so requests can be full.
        """
        state = self._state
        if state.calls - len(state.ended) >= self._slots or not self._lanes.ready:
            return None
        call = self._scheduling.next_call(now, begins)
        self.count += call is not None
        return call

    def context(self) -> Context:
        """Return the context in which the calling thread calls this task."""
        thread = threading.get_ident()
        context = self._contexts.get(thread)
        if context is None:
            context = self._contexts[thread] = Context()
        return context

    def ended(self, call: Call, outcomes: Sequence[Outcome] | None, ended: float, waited: float) -> bool:
        """Note how a call ended that the leader has made; return whether the leader may make the next one, too."""
        policy = self._policy
        assert policy is not None
        policy.learn(waited, ended)
        self.ended_elsewhere(call, outcomes, ended)
        return policy.is_short(ended) and not self._state.is_stopping

    def ended_elsewhere(self, call: Call, outcomes: Sequence[Outcome] | None, ended: float) -> None:
        """Note how a call ended that had kept its leader; that was learnt when another thread began to lead."""
        self.count -= 1
        if outcomes is None:
            self._abandoned(call)
        else:
            running = self._state.running
            self._state.ended.append((call, outcomes, [ended - running[held] for held in call.messages]))

    def kept_leader(self) -> None:
        """Learn that a call kept the leader for so long that another thread leads now."""
        if self._policy is not None:
            self._policy.learn(MOST_COUNTED, clocks.monotonic())
        self._state.is_dirty = True
