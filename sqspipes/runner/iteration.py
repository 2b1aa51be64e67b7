"""Results: an iterator over what a task of a run returns."""

from __future__ import annotations

import atexit
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from sqspipes.runner.run import Run
from sqspipes.runner.signals import watched
from sqspipes.runner.stream import Stream


class Results(Iterator[Any]):
    """What the chosen task returned, as it comes: the function's own objects.

    A result's message is acknowledged when the next one is asked for, and when a ``with`` block is left
    normally; left by an exception, it is given back. Closing, or leaving the block or the loop, stops the run in
    good order. Bounded: a slow reader slows the pipe.
    """

    def __init__(self, run: Run, stream: Stream) -> None:
        self._run = run
        self._stream = stream
        self._signals = ExitStack()
        if threading.current_thread() is threading.main_thread():
            # SIGINT stays a KeyboardInterrupt, wherever the reader is: it ends the loop like any exception.
            self._signals.enter_context(watched(run, [signal.SIGTERM]))
        # For a reader that breaks out of its loop without closing: this may be called in any thread, with any lock
        # held, so it only asks. At the end of the process there is time to wait.
        self._dropped = weakref.finalize(self, run.stop)
        self._dropped.atexit = False
        self._at_exit = partial(_stop, run, stream)
        atexit.register(self._at_exit)

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> Any:
        try:
            result = self._stream.next()
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

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finish(settle=error is None)
        if error is None:
            self._run.wait()

    def _finish(self, *, settle: bool) -> None:
        if settle:
            self._stream.settle()
        self._dropped.detach()
        atexit.unregister(self._at_exit)
        _stop(self._run, self._stream)
        self._signals.close()


def _stop(run: Run, stream: Stream) -> None:
    """Stop a run in good order and wait for it; what was not read is given back."""
    stream.close()
    if run.live:
        run.stop()
        run.join()
