"""RunLoop: the event loop of a run, made when something is first to be awaited."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sqspipes.calls.outcome import Abandoned

if TYPE_CHECKING:
    from sqspipes.calls.event_loop import Loop


class RunLoop:
    """Makes the one loop of a run when it is asked for: most runs need none, and asyncio is slow to import.

    The arguments are those of ``Loop``.
    """

    def __init__(
        self,
        domain: str,
        died: Callable[[str, BaseException], None],
        leaves: Sequence[Callable[[], Any]] = (),
    ) -> None:
        self._arguments = (domain, died, leaves)
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._closed = False

    def get(self) -> Loop:
        """Return the loop; raises ``Abandoned`` after the ``close``, where there was none before."""
        with self._lock:
            if self._loop is None:
                if self._closed:
                    raise Abandoned
                from sqspipes.calls.event_loop import Loop

                self._loop = Loop(*self._arguments)
            return self._loop

    def result(self, made: Any) -> Any:
        """Return what something to be awaited gives, or a generator of what an async generator yields.

        It runs on the loop; the calling thread waits.
        """
        if isinstance(made, AsyncGenerator):
            return _each(self, made)
        return self.get().wait_for(made)

    def leave(self, deadline: float) -> None:
        """Run what is to run at the end, until ``deadline`` (monotonic)."""
        if self._loop is not None:
            self._loop.leave(deadline)

    def close(self, deadline: float) -> None:
        """End the loop, by ``deadline`` (monotonic), and make none any more."""
        with self._lock:
            self._closed = True
        if self._loop is not None:
            self._loop.close(deadline)


def _each(loop: RunLoop, values: AsyncGenerator[Any, None]) -> Iterator[Any]:
    """Yield what an async generator yields; closed, it closes that one."""
    pulled = loop.get().pulled(values)
    try:
        yield from pulled
    finally:
        pulled.close()
