"""Clocks: seconds that no wall clock moves, be it set anew by the machine or frozen by somebody's tests.

What users see, a time of death for one, is of the wall clock, ``time.time()``; waits, timeouts and leases are not.
Tools that freeze time in tests replace ``time.monotonic`` as well, but only where some of its callers see it: clocks
that disagree never end a wait. The system's own clocks are asked by number here, which those tools leave alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial


def _clock(name: str) -> Callable[[], float] | None:
    """Return a clock of the system, or None where it has none of this name."""
    number = getattr(time, name, None)
    if number is None:
        return None
    clock = partial(time.clock_gettime, number)
    try:
        clock()
    except OSError:
        return None
    return clock


#: Seconds that have passed while this machine was awake: for waits and timeouts.
monotonic: Callable[[], float] = _clock("CLOCK_MONOTONIC") or partial(time.monotonic)

#: The same with the seconds for which it was suspended: for leases, which the broker counts meanwhile. Elsewhere than
#: on Linux the monotonic clock goes on during a suspension.
boottime: Callable[[], float] = (sys.platform == "linux" and _clock("CLOCK_BOOTTIME")) or monotonic


class LeaseClock:
    """Seconds since the run began, those included for which the machine was suspended; no wall clock moves them."""

    def __init__(self) -> None:
        self._began = boottime()

    def now(self) -> float:
        """Return the seconds."""
        return boottime() - self._began
