"""Signals: SIGTERM and SIGINT stop a run in good order while the main thread waits for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from sqspipes.runner.run import Run


class Signals:
    """What came in while a run was watched, and what was done about signals before."""

    def __init__(self, run: Run, numbers: Sequence[signal.Signals]) -> None:
        self._run = run
        self._received = 0
        self._before = {number: signal.signal(number, self) for number in numbers}
        self.interrupted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: nothing here takes a lock, as the main thread may hold any."""
        if self._run.over:
            self._pass_on(signal.Signals(number))
            return
        self._received += 1
        self.interrupted |= number == signal.SIGINT
        if self._received == 1 and number == signal.SIGINT:
            self._run.interrupt()
        else:
            self._run.signal()

    def restore(self) -> None:
        """Put the handlers back that were set before."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: signal.Signals) -> None:
        """Do what was done before: this handler outlived its run, as its results were dropped in another thread."""
        signal.signal(number, self._before[number])
        signal.raise_signal(number)


@contextmanager
def watched(run: Run) -> Iterator[Signals | None]:
    """Let SIGTERM and SIGINT stop a run inside the block; outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    signals = Signals(run, (signal.SIGTERM, signal.SIGINT))
    try:
        yield signals
    finally:
        signals.restore()
