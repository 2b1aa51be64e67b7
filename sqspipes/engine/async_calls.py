"""AsyncCalls: calls an async task on the event loop of its run."""

from __future__ import annotations

import types
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from sqspipes.calls.event_loop import Loop, closed, given, raised
from sqspipes.calls.held import Held
from sqspipes.calls.outcome import Abandoned, Call
from sqspipes.engine.call_threads import CallThreads
from sqspipes.engine.calling import CallSide
from sqspipes.engine.overdue import BLOCKED_SECONDS
from sqspipes.support import clocks, lines
from sqspipes.support.forked import Stepped

logger = lines.logger(__name__)


class AsyncCalls:
    """Makes the calls of an async task on a loop, at most ``most`` at once.

    Threads hand on what the calls returned: that waits where the next queue is behind, and the loop must not. They
    also take what an async generator yields.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        most: int,
        side: CallSide,
        loop: Loop,
        died: Callable[[str, BaseException], object],
    ) -> None:
        self._task = task
        self._side = side
        self._loop = loop
        self._died = died
        self._results: dict[Held, Callable[[], Any]] = {}
        self._threads = CallThreads(f"{domain} {task}", most, self._conclude, died)
        self._turn: tuple[Held, float] | None = None  # whose turn it is on the loop, and since when
        self._told = 0.0  # since when the last one has had its turn that was told of

    def give(self, calls: Sequence[Call]) -> None:
        """Begin calls; never blocks."""
        if not self._loop.begin([self._run(call) for call in calls]):
            for call in calls:
                self._side.abandoned(call)

    def take_back(self) -> list[Call]:
        """Return the calls that have not begun: none, as the loop begins each at once."""
        return []

    def close(self) -> None:
        """Let idle threads end; calls that run go on."""
        self._threads.close()

    def join(self, deadline: float) -> None:
        """Wait until what is idle has ended, until ``deadline`` (monotonic) at most; after the ``close``."""
        self._threads.join(deadline)

    def watch(self, now: float) -> float:
        """Warn of a call that keeps the loop; return the seconds until the next look."""
        turn = self._turn
        if turn is not None and turn[1] != self._told and now - turn[1] >= BLOCKED_SECONDS:
            self._told = turn[1]
            logger.warning(
                "%s %s has kept the event loop for %.1f s: no other call goes on meanwhile",
                self._task, turn[0].message.id, now - turn[1],
            )  # fmt: skip
        return BLOCKED_SECONDS

    # In the threads

    def _conclude(self, call: Call) -> None:
        (held,) = call.messages
        try:
            outcome = self._side.conclude(held, self._results.pop(held))
        except Abandoned:
            self._side.abandoned(call)
        else:
            self._side.done(call, [outcome])

    # On the loop

    async def _run(self, call: Call) -> None:
        (held,) = call.messages
        try:
            made = self._side.make(held)
            if isinstance(made, AsyncGenerator):
                value = self._pulled(made, held)
            else:
                value = await self._taking_turns(made, held)
            self._results[held] = partial(given, value)
        except BaseException as error:  # a SystemExit would end the loop
            self._results[held] = partial(raised, error)
        try:
            self._threads.give([call])
        except BaseException as error:  # the machine has no more threads
            del self._results[held]
            self._died(f"worker {self._task}", error)
            self._side.abandoned(call)

    def _pulled(self, values: AsyncGenerator[Any, None], held: Held) -> Iterator[Any]:
        """Yield what an async generator yields, in one of the threads."""
        over = False
        try:
            while True:
                try:
                    value = self._loop.wait_for(self._next(values, held))
                except BaseException as error:
                    over = True
                    if isinstance(error, StopAsyncIteration):
                        return
                    raise
                yield value
        finally:
            if not over:
                self._loop.wait_for(closed(values))

    async def _next(self, values: AsyncGenerator[Any, None], held: Held) -> Any:
        return await self._taking_turns(values.__anext__(), held)

    @types.coroutine
    def _taking_turns(self, coroutine: Any, held: Held) -> Generator[Any, Any, Any]:
        """Await a coroutine, or a step of an async generator, noting when it has the loop to itself."""
        stepped = Stepped(coroutine, self._loop.here)
        go_on: Callable[[], Any] = partial(stepped.send, None)
        while True:
            self._turn = (held, clocks.monotonic())
            try:
                awaited = go_on()
            except StopIteration as end:
                return end.value
            finally:
                self._turn = None
            try:
                go_on = partial(stepped.send, (yield awaited))
            except BaseException as error:
                go_on = partial(stepped.throw, error)
