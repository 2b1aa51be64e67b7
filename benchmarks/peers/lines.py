"""Lines: a peer appends one for each message that has gone through, whatever process it is in."""

from __future__ import annotations

import functools
import io
import os
from pathlib import Path


@functools.cache
def opened() -> io.FileIO:
    """Return the file that the environment names."""
    return Path(os.environ["BENCHMARK_LINES"]).open("ab", buffering=0)


def write(word: str) -> None:
    """Append a line."""
    opened().write(f"{word}\n".encode())
