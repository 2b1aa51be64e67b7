"""Progress: how much of standard input is read, and how fast, on standard error if that is a terminal."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

from rich import progress
from rich.console import Console

#: Seconds between two looks of people.
BETWEEN = 0.1


class Progress(Protocol):
    """What is told of each line."""

    def read(self, size: int) -> None:
        """Take note of a line of so many bytes."""


class Unseen:
    """Shows nothing."""

    def read(self, size: int) -> None:
        """Let it pass."""


class Bar:
    """A bar, as far as the input's size is known, with count and rate."""

    def __init__(self, bar: progress.Progress, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task("put", total=total, lines=0, rate=0.0)
        self._lines = 0
        self._bytes = 0
        self._began = time.monotonic()
        self._shown = 0.0

    def read(self, size: int) -> None:
        """Show one more line, unless the last one was only just shown."""
        self._lines += 1
        self._bytes += size
        now = time.monotonic()
        if now >= self._shown + BETWEEN:
            self._shown = now
            rate = self._lines / max(now - self._began, 0.001)
            self._bar.update(self._task, completed=self._bytes, lines=self._lines, rate=rate)


@contextmanager
def progress_of(file: BinaryIO) -> Iterator[Progress]:
    """Show the progress of reading a file while the block runs; not where lines are typed in."""
    if not sys.stderr.isatty() or file.isatty():
        yield Unseen()
        return
    columns = (
        progress.BarColumn(),
        progress.TextColumn("{task.fields[lines]:,} values, {task.fields[rate]:,.0f}/s"),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar, _size(file))


def _size(file: BinaryIO) -> int | None:
    """Return the bytes of a file; a pipe's are not known."""
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
