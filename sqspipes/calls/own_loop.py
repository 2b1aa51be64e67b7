"""OwnLoop: an event loop for what is called outside a run, by the thread that waits for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from sqspipes.calls.event_loop import awaited, end_tasks, stepped
from sqspipes.support.workers import Workers


class OwnLoop:
    """An event loop that runs while somebody waits for a result.

    It runs in the calling thread. Where that has a loop running already, as in a notebook or a web application, it
    runs in a thread beside it: one thread runs one loop at a time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_task_factory(stepped)
        self._beside: Workers | None = None
        if asyncio._get_running_loop() is not None:
            self._beside = Workers(1, "sqspipes loop")

    def result(self, made: Any) -> Any:
        """Return what something to be awaited gives, or a plain generator of what an async one yields."""
        if isinstance(made, AsyncGenerator):
            return self._each(made)
        return self._do(lambda: self._loop.run_until_complete(awaited(made)))

    def close(self) -> None:
        """End what is left on it."""
        try:
            self._do(lambda: end_tasks(self._loop))
        finally:
            if self._beside is not None:
                self._beside.shutdown()
            self._loop.close()

    def _do(self, work: Callable[[], Any]) -> Any:
        """Do something with the loop, in its thread."""
        if self._beside is None:
            return work()
        future = self._beside.submit(contextvars.copy_context().run, work)
        try:
            return future.result()
        finally:
            if not future.done():  # Ctrl-C came meanwhile
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _each(self, values: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    value = self.result(values.__anext__())
                except StopAsyncIteration:
                    return
                yield value
        finally:
            self.result(values.aclose())
