"""Background: what goes on in a thread of its own until it is told to stop: by users, signals, the process's end."""

from __future__ import annotations

import atexit
import math
import os
import threading
from abc import ABC, abstractmethod

from sqspipes.engine.stream import SIGNAL_SECONDS
from sqspipes.errors import RunError
from sqspipes.summary import Summary
from sqspipes.support import clocks
from sqspipes.support.checks import checked_timeout
from sqspipes.support.wakeup import Wakeup


class Background(ABC):
    """A run, as its user sees it from other threads."""

    def __init__(self, name: str) -> None:
        self._error: BaseException | None = None
        self._is_over = False
        self._ended = Wakeup()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def error(self) -> BaseException | None:
        """The error that ended the run, which ``wait`` raises; None while there is none."""
        return self._error

    @property
    @abstractmethod
    def summary(self) -> Summary:
        """The counts so far, and the reason once the run is over."""

    @abstractmethod
    def _supervise(self) -> None:
        """Do all of it, in the thread; raises nothing."""

    @abstractmethod
    def _ask(self, what: str) -> None:
        """Take a request to ``stop``, a ``signal`` or an ``interrupt``; takes no lock, and returns at once."""

    def wait(self, timeout: float | None = None) -> Summary:
        """Wait for the end and return the summary.

        Raises ``RunError`` if a part or a process died, a task's own error if ``on_error="raise"`` or a source gave
        up, and ``TimeoutError`` if the run is not over after ``timeout`` seconds.
        """
        if not self.join(timeout):
            raise TimeoutError(f"the run is not over after {timeout} s")
        if self._error is not None:
            raise self._error
        return self.summary

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, whatever it is; False if the run is not over after ``timeout`` seconds.

        A child of a fork has no part in the run, and waits for nothing.
        """
        if not self.is_here:
            return True
        seconds = math.inf if timeout is None else checked_timeout("timeout", max(timeout, 0.0))
        deadline = clocks.monotonic() + seconds
        while not self._is_over:
            left = deadline - clocks.monotonic()
            if left <= 0:
                return False
            self._ended.sleep(min(SIGNAL_SECONDS, left))
        self._ended.wake()  # another one may wait
        self._thread.join()
        return True

    def _reason_or(self, reason: str) -> str:
        """Return the reason of the end: that of a good one, unless an error ended the run."""
        if self._error is None:
            return reason
        return "died" if isinstance(self._error, RunError) else "raised"

    def stop(self) -> None:
        """Ask the run to stop in good order; returns at once, from any thread, a task's too."""
        self._request("stop")

    def signal(self) -> None:
        """Ask the run to stop as SIGTERM does: open polls are let end. A second call waits for nothing."""
        self._request("signal")

    def interrupt(self) -> None:
        """Ask the run to stop as SIGINT does: open polls are cut."""
        self._request("interrupt")

    @property
    def is_here(self) -> bool:
        """Whether the run is this process's; in a forked child it is the parent's alone."""
        return self._pid == os.getpid()

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._is_over

    @property
    def live(self) -> bool:
        """Whether the run goes on, in this process."""
        return self._thread.ident is not None and not self._is_over and self.is_here

    def _request(self, what: str) -> None:
        if self.is_here:
            self._ask(what)

    def _begin(self) -> None:
        atexit.register(self._leave)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._supervise()
        finally:
            self._is_over = True
            self._ended.wake()
            atexit.unregister(self._leave)

    def _leave(self) -> None:
        """Stop in good order at the end of the process."""
        if self.live:
            self.stop()
            self.join()
