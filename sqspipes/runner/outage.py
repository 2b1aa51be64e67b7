"""Outage: one place that waits out a broker that cannot be reached, and says so once."""

from __future__ import annotations

import logging
import random
import threading
import time

logger = logging.getLogger(__name__)

#: Seconds: the first and the longest pause between tries, exponential with full jitter in between.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 20.0


def pause(tries: int) -> float:
    """Return the seconds to wait after so many failed tries in a row (1 is the first)."""
    return random.uniform(0.0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries, 16)))


class Outage:
    """The state of the way to one broker: WARNING when it begins and when it ends, nothing in between.

    It begins when a request fails a second time, and ends when every party that failed, a queue's requests of one
    kind, was answered again. A single failure that the next try mends is no outage, and is not logged above DEBUG.
    """

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._failures = 0
        self._since = 0.0
        self.error: str | None = None  #: what the last failed try said, while an outage lasts

    def failed(self, party: str, error: BaseException, tries: int) -> float:
        """Note a failed request; return the seconds to wait before the next try of it."""
        logger.debug("%s: request to %s failed, try %d: %s", party, self._broker, tries, error)
        if tries < 2:
            return pause(tries)
        with self._lock:
            begins = not self._failing
            if begins:
                self._since, self._failures = time.monotonic(), 0
            self._failing.add(party)
            self._failures += 1
            self.error = str(error)
        if begins:
            logger.warning("%s does not answer, trying again until it does: %s", self._broker, error)
        return pause(tries)

    def succeeded(self, party: str) -> None:
        """Note an answer."""
        if party not in self._failing:
            return
        with self._lock:
            self._failing.discard(party)
            if self._failing:
                return
            self.error = None
            seconds, failures = time.monotonic() - self._since, self._failures
        logger.warning(
            "%s answers again after %.1f s and %d failed requests", self._broker, seconds, failures
        )
