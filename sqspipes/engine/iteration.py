"""Results: an iterator over what a task of a run returns."""

from __future__ import annotations

import math
import signal
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from sqspipes.engine.run import Run
from sqspipes.engine.signals import Signals
from sqspipes.engine.stream import Stream


class Results(Iterator[Any]):
    """What the chosen task returned, as it comes: the function's own objects.

    A result's message is acknowledged when the next one is asked for, and when a ``with`` block is left
    normally; left by an exception, it is given back. Closing, or leaving the block or the loop, stops the run in
    good order. Bounded: a slow reader slows the pipe. It ends by itself when nothing came for ``timeout`` seconds.
    A forked child reads nothing more: the results are its parent's.
    """

    def __init__(self, run: Run, stream: Stream, timeout: float = math.inf) -> None:
        self._run = run
        self._stream = stream
        self._timeout = timeout
        # SIGINT stays a KeyboardInterrupt, wherever the reader is: it ends the loop like any exception.
        main = threading.current_thread() is threading.main_thread()
        self._signals = Signals(run, [signal.SIGTERM]) if main else None
        self._dropped = weakref.finalize(self, _drop, run, self._signals)
        self._dropped.atexit = False

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        if not self._run.is_here:  # a forked child has no part in the run
            raise StopIteration
        try:
            result = self._stream.next(self._timeout)
        except BaseException:
            self._finish(settle=False)
            raise
        if result is None:
            self._finish(settle=False)
            self._run.wait()
            raise StopIteration
        return result[0]

    def close(self) -> None:
        """Call the last result done with, and stop the run in good order."""
        self._finish(settle=True)
        self._run.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish(settle=error is None)
        if error is None:
            self._run.wait()

    def _finish(self, *, settle: bool) -> None:
        if self._run.is_here:
            if settle:
                self._stream.settle()
            if self._run.live:
                self._run.stop()
                self._run.join()
            if self._signals is not None:
                self._signals.restore()
                self._signals = None
        self._dropped.detach()


def _drop(run: Run, signals: Signals | None) -> None:
    """Ask the run of a reader that left its loop without closing to stop.

    This may be called in any thread, with any lock held, so it waits for nothing.
    """
    run.stop()
    if signals is not None:
        signals.restore()
