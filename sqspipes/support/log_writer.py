"""LogWriter: writes the log lines of threads that may not wait, in a thread of its own and in order."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

#: Lines that may wait for a log handler; further ones are counted, and the log says how many are missing.
MOST_WAITING = 10_000


class LogWriter(logging.Filter):
    """A filter of loggers: lines of threads that are ``deferring`` are written by the writer's thread.

    A log handler that blocks, as one whose terminal is stopped, then holds up nothing but the log. The thread ends
    when nobody defers any more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lines: deque[logging.LogRecord] = deque()
        self._missing = 0
        self._changed = threading.Condition()
        self._is_writing = False
        self._deferring = 0  # threads
        self._thread: threading.Thread | None = None

    @contextmanager
    def deferring(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Leave the calling thread's lines to the writer; at the end wait so many seconds until they are written.

        The thread writes its lines itself as long as ``unless`` says so.
        """
        with self._changed:
            self._deferring += 1
        self._here.writes_itself = unless
        try:
            yield
        finally:
            self._here.writes_itself = None
            self.flush(seconds)
            with self._changed:
                self._deferring -= 1
                self._changed.notify_all()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is to be written at once, by the calling thread."""
        writes_itself = getattr(self._here, "writes_itself", None)
        if writes_itself is None or writes_itself():
            return True
        if self._process != os.getpid():  # the thread stayed with the parent
            self._begin()
        with self._changed:
            if len(self._lines) >= MOST_WAITING:
                self._missing += 1
                return False
            self._lines.append(record)
            self._changed.notify_all()
            if self._thread is not None or self._has_started():
                return False
            waiting, self._lines = self._lines, deque()
        self._here.writes_itself = None
        for each in waiting:  # the line of this record among them
            _write(each)
        self._here.writes_itself = writes_itself
        return False

    def _has_started(self) -> bool:
        """Start the writer's thread; False where that cannot be, as at the end of the process."""
        thread = threading.Thread(target=self._work, name="sqspipes log", daemon=True)
        try:
            thread.start()
        except Exception:
            return False
        self._thread = thread
        return True

    def flush(self, seconds: float) -> bool:
        """Wait until all lines are written, so many seconds at most."""
        if self._process != os.getpid():
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._is_writing, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or not self._deferring)
                if not self._lines:
                    self._thread = None
                    return
                record, missing, self._missing = self._lines.popleft(), self._missing, 0
                self._is_writing = True
            _write(record)
            if missing:
                logging.getLogger(record.name).warning(
                    "%d lines of the log are missing: it was behind", missing
                )
            del record


def _write(record: logging.LogRecord) -> None:
    # Through the other filters, too. A handler that raises is its program's: the run goes on.
    with suppress(BaseException):
        logging.getLogger(record.name).handle(record)


log_writer = LogWriter()
