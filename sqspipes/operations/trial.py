"""Trial: a whole pipe in this thread without a broker, every hand-off written and read as between machines."""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import Any

from sqspipes.calls import perform
from sqspipes.calls.held import Held, Origin
from sqspipes.calls.outcome import Emission
from sqspipes.messages.body import decode, encode
from sqspipes.messages.message import Delivery, Message
from sqspipes.messages.values import check_nothing_lazy
from sqspipes.operations.caller import Caller
from sqspipes.support.clocks import LeaseClock
from sqspipes.tasks import current
from sqspipes.tasks.pipe import Pipe
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.task import Task


class Trial:
    """One value's way through a pipe. It is the outlet of the calls on it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._clock = LeaseClock()
        self._caller = Caller()
        self._waiting: deque[tuple[Task, Message, str]] = deque()
        self._task: Task | None = None  # the one that is being called
        self.results: list[Any] = []

    def run(self, task: Task, message: Message, text: str) -> list[Any]:
        """Call the tasks, breadth first, and return what came out at the end of the line; errors are raised."""
        self._waiting.append((task, message, text))
        with self._caller:
            while self._waiting:
                self._call(*self._waiting.popleft())
        return self.results

    def _call(self, task: Task, message: Message, text: str) -> None:
        self._task = task
        held = self._received(task, message, text)
        if task.method is None:
            self.results.append(held.message.value)
            return
        plan = self._pipe.plan(task)
        token = current.begin((held,), self._clock, is_batch=task.batch is not None)
        try:
            perform.hand_on(plan, held, held.message, self._called(plan, held.message.value), self)
        finally:
            current.end(token)

    def _received(self, task: Task, message: Message, text: str) -> Held:
        """Return a message as it would be received: written to a body and read again."""
        queue, level = task.queue(message.priority), message.priority
        body = encode(message, text)
        delivery = Delivery(queue, uuid.uuid4().hex, "", 1, body, message.lane, time.time())
        return Held(delivery, decode(delivery), level, task.lease, self._clock.now())

    def _called(self, plan: Plan, value: Any) -> Any:
        """Return what a task's function returns for a value, in a batch of one if it takes batches."""
        if plan.task.batch is None:
            return self._caller.call(plan, value, *plan.task.args)
        results = perform.resolved(self._caller.call(plan, [value], *plan.task.args), self)
        return results if results is None else results[0]

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Take an output to its task, or to the results."""
        if emission.task is None or emission.text is None:
            check_nothing_lazy(emission.value, "result")
            self.results.append(emission.value)
            return
        task = self._pipe.reachable[emission.task]
        assert isinstance(origin, Held)
        assert self._task is not None
        message = Message(
            emission.id,
            emission.value,
            emission.group,
            task.level(emission.priority),
            first_put=origin.message.first_put,
            extra=perform.passed_on(origin.message.extra, self._task, task),
        )
        self._waiting.append((task, message, emission.text))

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives."""
        return self._caller.awaited(made)

    def flush(self, origin: Origin) -> None:
        """Wait for nothing: what was emitted is safe here."""
