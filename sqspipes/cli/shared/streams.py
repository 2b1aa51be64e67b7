"""Streams: standard input, output and error, also where they are closed or something else writes to them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

NAMES = ("standard input", "standard output", "standard error")

#: The descriptors that were closed when the command began.
_closed: set[int] = set()


def open_all() -> None:
    """Open what is closed on nothing: no file of a broker may be taken for standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(number)
            os.open(os.devnull, os.O_RDWR)  # the lowest descriptor that is free, which is this one
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            raw = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            buffer = io.BufferedReader(raw) if number == 0 else io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(buffer, encoding="utf-8", line_buffering=True))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # values and errors may be any text
            stream.reconfigure(errors="backslashreplace")


def demand(number: int) -> None:
    """End the command if a stream is closed without which it would do harm."""
    if number in _closed:
        raise click.ClickException(f"{NAMES[number]} is closed")


@contextlib.contextmanager
def printing_to_error() -> Iterator[None]:
    """Let what is printed inside the block go to standard error, also by programs that are started there."""
    if sys.stdout is None or sys.stdout.closed or not _is_first(sys.stdout):
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _is_first(stream: Any) -> bool:
    try:
        return bool(stream.fileno() == 1)
    except (OSError, ValueError, AttributeError):
        return False
