"""Quota: how many requests a second a queue takes of one kind, learnt from those it throttles.

A FIFO queue takes 300 requests a second of each action, or some thousands in high-throughput mode, depending on
region and partitions, and nobody says how much of it is left for this process. So nothing is held back until the
first request is throttled; then the pace is what went through, less a little, and grows again, slowly at first.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable

from sqspipes.support import clocks

#: The part that is kept of the pace at which a request was throttled, and by which it grows: each second, and each
#: second squared, so that a cut that went too deep is soon made up for.
KEPT, GROWTH, ACCELERATION = 0.93, 0.01, 0.004

#: Seconds after a cut in which what is throttled was under way before it.
CUT_SECONDS = 0.5

#: Seconds over which the pace is measured: at most, and at least.
LONGEST_SPAN, SHORTEST_SPAN = 1.0, 0.05

#: Requests a second that are tried in any case.
LEAST = 5.0

#: Answers of which the times are remembered.
_REMEMBERED = 1_000


class Quota:
    """The pace of the requests of one action to one queue."""

    def __init__(self, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: deque[float] = deque(maxlen=_REMEMBERED)
        self._limit = math.inf
        self._cut = -math.inf
        self._free = 0.0  # when the next request may go

    def wait(self) -> None:
        """Wait for a request's turn."""
        seconds = self.seconds_to_wait()
        if seconds > 0:
            threading.Event().wait(seconds)

    def seconds_to_wait(self) -> float:
        """Take the next turn, if requests have to wait at all; return the seconds until it comes."""
        return self.turn() if self._limit < math.inf else 0.0

    def turn(self) -> float:
        """Take the next turn; return the seconds until it comes."""
        with self._lock:
            now = self._clock()
            turn = max(self._free, now)
            self._free = turn + 1 / self._pace(now)
            return turn - now

    def answered(self) -> None:
        """Note a request that went through."""
        self._answers.append(self._clock())

    def throttled(self) -> None:
        """Note a request that was refused for being one too many."""
        with self._lock:
            now = self._clock()
            if now - self._cut < CUT_SECONDS:
                return
            self._limit = max(LEAST, KEPT * min(self._pace(now), self._went_through(now)))
            self._cut = self._free = now

    def _pace(self, now: float) -> float:
        if self._limit == math.inf:
            return math.inf
        calm = now - self._cut
        return self._limit * (1 + GROWTH * calm + ACCELERATION * calm**2)

    def _went_through(self, now: float) -> float:
        """Return the requests a second that were answered of late."""
        times = [at for at in self._answers.copy() if at > now - LONGEST_SPAN]
        whole = len(times) < len(self._answers) < _REMEMBERED  # the times before are known too
        span = LONGEST_SPAN if whole or not times else now - times[0]
        return len(times) / max(span, SHORTEST_SPAN)
