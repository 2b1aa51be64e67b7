"""OwnLoop: an event loop in the calling thread, for what is called outside a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from sqspipes.runner.loop import end_tasks


class OwnLoop:
    """An event loop that runs while somebody waits for a result."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def result(self, made: Any) -> Any:
        """Return what a coroutine returns, or a plain generator of what an async one yields."""
        if isinstance(made, AsyncGenerator):
            return self._each(made)
        return self._loop.run_until_complete(made)

    def close(self) -> None:
        """End what is left on it."""
        try:
            end_tasks(self._loop)
        finally:
            self._loop.close()

    def _each(self, values: AsyncGenerator[Any, None]) -> Iterator[Any]:
        while True:
            try:
                value = self._loop.run_until_complete(values.__anext__())
            except StopAsyncIteration:
                return
            yield value
