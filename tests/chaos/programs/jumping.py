"""A process of the pipe one, two, three whose wall clock is set forward and back by an hour, again and again.

Settings are those of ``worker.py``. The clock jumps at each call of task one.
"""

from __future__ import annotations

import itertools
import time

real = time.time
hours = itertools.cycle([1.0, 0.0, -1.0, 0.0])
shift = 0.0


def jump() -> None:
    """Set the clock."""
    global shift
    shift = 3_600.0 * next(hours)


time.time = lambda: real() + shift
time.time_ns = lambda: int(1e9 * time.time())

import contextlib  # noqa: E402 - what is imported from here on has this clock
import logging  # noqa: E402
from typing import Any  # noqa: E402

import worker  # noqa: E402

noted = worker.noted


def jumping(task: str, value: dict[str, Any]) -> dict[str, Any]:
    """Write the call down, and set the clock while it runs."""
    if task == "one":
        jump()
    return noted(task, value)


worker.noted = jumping

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt), worker.pipe() as client:
        client.run(["one", "two", "three"])
