"""Loop: the event loop of one run, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent import futures
from functools import partial
from typing import Any

from sqspipes.calls.outcome import Abandoned
from sqspipes.support import clocks, lines
from sqspipes.support.forked import Stepped, called, forks

logger = lines.logger(__name__)

#: ``loop`` is the loop of this thread.
_here = threading.local()


def _stop_in_child() -> None:
    """In a forked child, have the loop end where it would go on: it is the parent's."""
    loop: asyncio.AbstractEventLoop | None = getattr(_here, "loop", None)
    if loop is not None:
        loop.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_in_child)


class _Threads(futures.ThreadPoolExecutor):
    """The threads of ``asyncio.to_thread``: a process that is forked in one ends where it comes back."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> futures.Future[Any]:
        """Call a function in a thread."""
        return super().submit(called, partial(function, *args, **options))


class Loop:
    """An event loop in a thread that starts with the first call; ``died`` is told what it cannot survive.

    What ``leaves`` make is run when all calls have ended.
    """

    def __init__(
        self,
        domain: str,
        died: Callable[[str, BaseException], None],
        leaves: Sequence[Callable[[], Any]] = (),
    ) -> None:
        self._name = f"sqspipes loop {domain}"
        self._died = died
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold on them
        self._leaves = leaves
        self._closed = False
        self.here = forks()

    def begin(self, coroutines: Sequence[Coroutine[Any, Any, None]]) -> bool:
        """Run coroutines, from any thread; False where they never begin: after the ``close`` and the loop's death."""
        with self._lock:
            if self._closed:
                for coroutine in coroutines:
                    coroutine.close()
                return False
            loop = self._loop or self._started()
            loop.call_soon_threadsafe(self._begin, loop, coroutines)
            return True

    def wait_for(self, made: Any) -> Any:
        """Return what a coroutine, or whatever else is to be awaited, gives to a thread that may wait.

        Raises ``Abandoned`` after the ``close``.
        """
        coroutine = made if isinstance(made, Coroutine) else awaited(made)
        try:
            return self._begun(coroutine).result()()
        except (asyncio.CancelledError, futures.CancelledError):
            if self._closed:
                raise Abandoned from None
            raise

    def pulled(self, values: AsyncGenerator[Any, None]) -> Pulled:
        """Return what an async generator yields, for one thread that may wait for it."""
        return Pulled(self, values)

    def leave(self, deadline: float) -> None:
        """Run what is to run at the end, as far as it can, already now, until ``deadline`` (monotonic)."""
        for leave in self._leaves:
            seconds = deadline - clocks.monotonic()
            if self._loop is not None and seconds > 0:
                with contextlib.suppress(Abandoned, futures.TimeoutError, futures.CancelledError):
                    self._begun(leave()).result(seconds)

    def _begun(self, coroutine: Coroutine[Any, Any, Any]) -> futures.Future[Callable[[], Any]]:
        caught = _caught(coroutine)
        with self._lock, contextlib.suppress(RuntimeError):  # the loop has died, and is closed
            if not self._closed:
                future = asyncio.run_coroutine_threadsafe(caught, self._loop or self._started())
                future.add_done_callback(lambda _: coroutine.close())  # it may have been cancelled unbegun
                return future
        for unused in (caught, coroutine):
            unused.close()
        raise Abandoned

    def close(self, deadline: float) -> None:
        """Cancel what still runs and end, by ``deadline`` (monotonic); what cannot be cancelled is left alone."""
        with self._lock:
            closed, self._closed = self._closed, True
        if self._loop is not None and self._thread is not None:
            if not closed:
                with contextlib.suppress(RuntimeError):  # it has died, and is closed
                    self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(max(0.0, deadline - clocks.monotonic()))

    def _started(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.new_event_loop()
        loop.set_task_factory(stepped)
        loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
        self._thread = threading.Thread(target=self._work, args=(loop,), name=self._name, daemon=True)
        self._thread.start()
        return loop

    def _begin(
        self, loop: asyncio.AbstractEventLoop, coroutines: Sequence[Coroutine[Any, Any, None]]
    ) -> None:
        for coroutine in coroutines:
            # Not made by the loop's factory: these coroutines step what they call themselves.
            task = asyncio.Task(coroutine, loop=loop)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            asyncio.set_event_loop(loop)
            _here.loop = loop
            called(loop.run_forever)
        except BaseException as error:  # a SystemExit of what a task has begun, for one
            with self._lock:
                self._closed = True  # nobody may wait for what would never begin
            self._died("event loop", error)
        self._end(loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what is left and run what is to run at the end; whatever one of these raises, the others follow."""
        leaves = [partial(lambda leave: loop.run_until_complete(leave()), leave) for leave in self._leaves]
        for end in (partial(end_tasks, loop), *leaves):
            try:
                end()
            except BaseException as error:
                logger.error("what was left on the event loop did not end well", exc_info=error)
        loop.close()


class Pulled(Iterator[Any]):
    """What an async generator on a loop yields, for one thread that may wait; ``close`` waits for its end."""

    def __init__(self, loop: Loop, values: AsyncGenerator[Any, None]) -> None:
        self._loop = loop
        self._values = values

    def __next__(self) -> Any:
        try:
            return self._loop.wait_for(_next(self._values))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Have the generator run to its end."""
        self._loop.wait_for(closed(self._values))


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left on a loop that has stopped, and close its async generators."""
    while left := asyncio.all_tasks(loop):
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left))
    loop.run_until_complete(loop.shutdown_asyncgens())


def stepped(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Return an asyncio task for a coroutine, also of the user's: a process that it forks leaves the loop alone."""
    return asyncio.Task(Stepped(coroutine), loop=loop, **options)


async def awaited(made: Any) -> Any:
    """Return what something to be awaited gives."""
    return await made


async def _next(values: AsyncGenerator[Any, None]) -> Any:
    return await values.__anext__()


async def closed(values: AsyncGenerator[Any, None]) -> None:
    await values.aclose()


async def _caught(coroutine: Coroutine[Any, Any, Any]) -> Callable[[], Any]:
    """Return a function that returns, or raises, what came of a coroutine: a SystemExit would end the loop."""
    try:
        return partial(given, await Stepped(coroutine))
    except BaseException as error:
        return partial(raised, error)


def given(value: Any) -> Any:
    return value


def raised(error: BaseException) -> Any:
    raise error
