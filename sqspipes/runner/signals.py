"""Signals: SIGTERM and SIGINT stop a run in good order while the main thread waits for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from sqspipes.runner.run import Run


class Signals:
    """What came in while a run was watched."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._received = 0
        self.interrupted = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: nothing here takes a lock, as the main thread may hold any."""
        self._received += 1
        self.interrupted |= number == signal.SIGINT
        if self._received == 1 and number == signal.SIGINT:
            self._run.interrupt()
        else:
            self._run.signal()


@contextmanager
def watched(
    run: Run, numbers: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT)
) -> Iterator[Signals]:
    """Let signals stop a run inside the block; outside the main thread nothing is changed.

    The handlers that were set before are put back.
    """
    signals = Signals(run)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
