"""Calling: the threads that call tasks. Inside a call nothing of the engine is touched: word goes to its inbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from sqspipes.brokers.base import Entry, list_key
from sqspipes.calls import perform
from sqspipes.calls.batch import perform_batch
from sqspipes.calls.entries import message_entry
from sqspipes.calls.held import Held, Origin, Parcel
from sqspipes.calls.outcome import Abandoned, Call, Emission, Outcome
from sqspipes.calls.run_loop import RunLoop
from sqspipes.defaults import LETTER_BYTES
from sqspipes.engine.emit_room import EmitRoom
from sqspipes.engine.stream import Stream
from sqspipes.events import HandedOn
from sqspipes.messages.body import plain
from sqspipes.messages.message import Message, lane_and_key
from sqspipes.messages.values import check_nothing_lazy
from sqspipes.support import clocks
from sqspipes.support.clocks import LeaseClock
from sqspipes.support.forked import called
from sqspipes.tasks import current
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.task import Task

#: Has something done in the engine's next turn, or in one soon.
Tell = Callable[[Callable[[], object]], object]


#: What came of a call that the leader made: its outcomes, None if its run had given it up; when it ended, on the
#: monotonic clock; and how many seconds of it were waited.
InlineCall: TypeAlias = tuple[Sequence[Outcome] | None, float, float]

#: Seconds between two looks of a call that waits whether its run is over.
FLUSH_SECONDS = 1.0


class _Route(NamedTuple):
    """Where outputs for one level of a task go.

    ``most`` is the largest body, in bytes, that the queue takes. ``is_plain``: bodies there are ours, and the task
    comes later in the pipe.
    """

    task: Task
    level: int
    queue: str
    most: int
    is_plain: bool


class CallSide:
    """What calls of one task see of their run: where their outputs go. All of it is called in the calls' threads.

    It is the ``Outlet`` of ``calls/perform.py``. ``sink`` is the task's side in the engine; it is only told.
    """

    def __init__(
        self,
        plan: Plan,
        sink: Any,
        tell: Tell,
        tell_soon: Tell,
        clock: LeaseClock,
        message_bytes: Callable[[str], int],
        linger: float,
        stream: Stream | None,
        loop: RunLoop,
        died: Callable[[str, BaseException], object],
        about_to_wait: Callable[[], object],
        hears_outputs: bool = False,
    ) -> None:
        self._plan = plan
        self._sink = sink
        self._tell = tell
        self._tell_soon = tell_soon
        self._clock = clock
        self._message_bytes = message_bytes
        self._linger = linger
        self._stream = stream
        self._loop = loop
        self._died = died
        self._about_to_wait = about_to_wait
        self._hears_outputs = hears_outputs
        self._is_batch = plan.task.batch is not None
        self._what = f"result of {plan.task.name}"
        self._rooms: dict[str, EmitRoom] = {}
        self._routes: dict[tuple[str, int], _Route] = {}  # by a task's name and a level
        self.is_abandoned = self.is_closed = False

    def run(self, call: Call) -> None:
        """Run a call, and leave word of how it ended; not if its lease was lost while it waited for a thread."""
        now = self._clock.now()
        if any(held.lost or held.expires <= now for held in call.messages):
            self._tell(partial(self._sink.too_late, call))
            return
        self._sink.state.began(call, clocks.monotonic())
        try:
            outcomes = self.perform(call)
        except Abandoned:
            self.abandoned(call)
        else:
            self._tell_soon(partial(self._sink.ended, call, outcomes))

    def perform(self, call: Call) -> Sequence[Outcome]:
        """Call the task; return an outcome for each message."""
        helds, is_batch = call.messages, self._is_batch
        token = current.begin(helds, self._clock, is_batch=is_batch)
        try:
            if is_batch:
                return perform_batch(self._plan, helds, self)
            return [perform.perform(self._plan, helds[0], self)]
        finally:
            current.end(token)

    def run_here(self, call: Call, context: Context, measures: bool) -> InlineCall:
        """Run a call in the thread that leads; raises nothing.

        ``measures``: what was computed is no waiting. Without it all of the call counts as waited.
        """
        began, used = clocks.monotonic(), time.thread_time() if measures else 0.0
        outcomes: Sequence[Outcome] | None = None
        try:
            outcomes = context.run(self.perform, call)
        except Abandoned:
            pass
        except BaseException as error:
            self._died(f"worker {self._plan.task.domain} {self._plan.task.name}", error)
        ended = clocks.monotonic()
        computed = time.thread_time() - used if measures else 0.0
        waited = ended - began - computed
        return outcomes, ended, waited if waited > 0.0 else 0.0

    # For calls on the event loop

    def make(self, held: Held) -> Any:
        """Return an async function's coroutine or generator for a message."""
        self._sink.state.began(Call((held,)), clocks.monotonic())
        current.begin((held,), self._clock)  # in an asyncio task of its own
        return called(self._plan.function, held.message.value, *self._plan.task.args)

    def conclude(self, held: Held, result: Callable[[], Any]) -> Outcome:
        """Hand on what an async function returned."""
        token = current.begin((held,), self._clock)
        try:
            return perform.conclude(self._plan, held, self, result)
        finally:
            current.end(token)

    def done(self, call: Call, outcomes: Sequence[Outcome]) -> None:
        """Leave word of a call that has ended."""
        self._tell(partial(self._sink.ended, call, outcomes))

    def abandoned(self, call: Call) -> None:
        """Leave word of a call that ended because its run had given it up."""
        self._tell(partial(self._sink.abandoned, call))

    # The outlet

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Pass one output on to the next queue, and then to whoever iterates over this run's results.

        The last one of a message's call goes when the call has ended.
        """
        if self.is_abandoned:
            raise Abandoned
        stream = self._stream
        if stream is not None:
            stream.wait_for_room()
        if emission.task is None:
            if stream is None:
                check_nothing_lazy(emission.value, self._what)
            else:
                self._tell(partial(self._sink.offer, origin, emission.value))
            return
        parcel = self._parcel(origin, emission)
        if isinstance(origin, Held) and origin.handed_on is not None and origin.handed_on.had(parcel.output):
            return
        if last and isinstance(origin, Held):
            origin.result = parcel
        else:
            self._send(parcel)

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""
        if isinstance(origin, Held) and origin.result is not None:
            parcel, origin.result = origin.result, None
            self._send(parcel)
        is_safe: list[bool] = []
        told = threading.Event()

        def tell(safe: bool) -> None:
            is_safe.append(safe)
            told.set()

        self._tell(partial(self._sink.flush, origin, tell))
        self._about_to_wait()
        # After the end of the run nobody tells any more.
        while not told.wait(FLUSH_SECONDS):
            if self.is_closed:
                raise Abandoned
        if not is_safe[0]:
            raise Abandoned

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives, from the run's event loop."""
        self._about_to_wait()
        return self._loop.result(made)

    def abandon(self) -> None:
        """Have calls that still run change nothing any more; in the engine's turn."""
        self.is_abandoned = True

    def close(self) -> None:
        """Let no call wait any more; after the last turn."""
        self.is_abandoned = self.is_closed = True
        for room in tuple(self._rooms.values()):
            room.close()

    def _send(self, parcel: Parcel) -> None:
        """Have an output sent at once, and wait while its queue is behind."""
        room = self._rooms.setdefault(parcel.queue, EmitRoom())
        if self.is_abandoned:
            raise Abandoned
        size = parcel.entry.size
        if room.is_full:
            self._about_to_wait()
        room.take(size)
        self._tell(partial(self._sink.emitted, parcel._replace(freed=partial(room.free, size))))

    def _parcel(self, origin: Origin, emission: Emission) -> Parcel:
        value, text, id, group, priority, name, content = emission
        assert name is not None
        task = self._plan.tasks[name]
        level = task.level(priority)
        route = self._routes.get((name, level))
        if route is None:
            route = self._routes[name, level] = self._route(task, level)
        parent = origin.message if isinstance(origin, Held) else None
        first_put = parent.first_put if parent else time.time()
        entry = None
        if text is not None and route.is_plain and not (parent and parent.extra):
            body = plain(id, group, route.level, first_put, text)
            if len(body) <= route.most - LETTER_BYTES:
                entry = Entry(body, *lane_and_key(id, group))
        if entry is None:
            extra = perform.passed_on(parent.extra, self._plan.task, route.task) if parent else {}
            message = Message(id, value, group, route.level, first_put, 0, extra)
            entry = message_entry(route.most, route.queue, message, text, self._what)
        output = (route.queue, entry.group, entry.id, content)
        arrived = None if self._stream is None else partial(self._stream.offer, origin, value)
        event = None
        if self._hears_outputs:
            own = self._plan.task
            event = HandedOn(own.domain, own.name, parent.id if parent else None, name, id)
        return Parcel(origin, route.queue, entry, arrived, self._linger, output, event=event)

    def _route(self, task: Task, level: int) -> _Route:
        queue = task.queue(level)
        is_plain = list_key(queue) is None and task.index > self._plan.task.index
        return _Route(task, level, queue, self._message_bytes(queue), is_plain)
