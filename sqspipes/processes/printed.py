"""Printed: what processes print, brought to one place in whole lines, so that it does not cross a live view."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from sqspipes.support import clocks

#: What is given the lines: some at a time, all of one process.
Show = Callable[[Sequence[str]], object]

#: Bytes that are read at a time, and of a line that does not end.
SIZE = 65_536

#: Standard output and standard error.
STREAMS = (1, 2)


class Printed:
    """The parent's side: reads what each process prints, in a thread for each, and has it shown."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._readers: list[threading.Thread] = []

    def listen(self, reader: Connection, name: str) -> None:
        """Read until nobody can write any more, then close the reader."""
        thread = threading.Thread(target=self._read, args=(reader,), name=f"{name} printed", daemon=True)
        self._readers = [*(each for each in self._readers if each.is_alive()), thread]
        thread.start()

    def end(self, seconds: float) -> None:
        """Wait until all that was printed is shown; what a process has left running may go on printing."""
        deadline = clocks.monotonic() + seconds
        for thread in self._readers:
            thread.join(max(0.0, deadline - clocks.monotonic()))

    def _read(self, reader: Connection) -> None:
        rest = b""
        with reader:
            while data := os.read(reader.fileno(), SIZE):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > SIZE:
                    lines, rest = [*lines, rest], b""
                self._pass_on(lines)
        self._pass_on([rest] if rest else [])

    def _pass_on(self, lines: Sequence[bytes]) -> None:
        if lines:
            # Whatever is wrong with the screen, the process must not wait for a reader.
            with suppress(Exception):
                self._show([line.decode(errors="replace") for line in lines])


class Diverted:
    """The process's side: its standard output and error go to the parent, as long as there is one.

    The reader's end is held open here, too: a task must not fail because it prints just when the parent has died.
    """

    def __init__(self, reader: Connection, writer: Connection) -> None:
        self._reader = reader
        self._own = [os.dup(stream) for stream in STREAMS]
        _flush()
        for stream in STREAMS:
            os.dup2(writer.fileno(), stream)
        writer.close()

    def give_back(self) -> None:
        """Print where the process printed before, what the parent has not read as well; returns when all is there."""
        for own, stream in zip(self._own, STREAMS, strict=True):
            os.dup2(own, stream)
        with suppress(OSError):  # there may be no terminal any more
            while data := os.read(self._reader.fileno(), SIZE):
                os.write(self._own[1], data)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
