"""Outage: the one place that waits out a broker that does not answer, and says so once."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable

from sqspipes.events import OutageBegan, OutageEnded
from sqspipes.support import clocks, event_log, lines
from sqspipes.support.backoff import ExponentialBackoff

logger = lines.logger(__name__)

#: The pauses between tries, left to chance altogether.
BACKOFF = ExponentialBackoff(0.1, 20.0, jitter=1.0)

#: Seconds without any answer after which the next one ends the pauses of all who wait: the broker was away, not
#: busy. They begin again within so many seconds of it, each at its own chance.
AWAY_SECONDS, RETURN_SECONDS = 2.0, 0.5


def pause_after_return() -> float:
    """Return the seconds to wait when the broker answers again: not all who waited ask at the same moment."""
    return random.uniform(0.0, RETURN_SECONDS)


class Outage:
    """The state of the way to one broker: WARNING when it begins and when it ends, nothing in between.

    It begins when a request fails a second time, and ends when every party that failed, a queue's requests of one
    kind, was answered again. A single failure that the next try mends is no outage, and is not logged above DEBUG.
    """

    def __init__(
        self,
        broker: str,
        clock: Callable[[], float] = clocks.monotonic,
        tell: Callable[[OutageBegan | OutageEnded], object] = event_log.log,
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._failing: dict[str, float] = {}  # parties, and when their last failures were
        self._failures = 0
        self._since = 0.0
        self._answered = clock()
        self._returned: list[Callable[[], None]] = []
        self.error: str | None = None  #: what the last failed try said, while an outage lasts

    def failed(self, party: str, error: BaseException, tries: int) -> float:
        """Note a failed request; return the seconds to wait before the next try of it."""
        logger.debug("%s: request to %s failed, try %d: %s", party, self._broker, tries, error)
        if tries > 1:
            self.note(party, error)
        return BACKOFF.seconds(tries)

    def on_return(self, resume: Callable[[], None]) -> None:
        """Have ``resume`` called when the broker answers after it was away: nobody need wait out a pause then."""
        self._returned.append(resume)

    def succeeded(self, party: str, asked: float = math.inf) -> None:
        """Note an answer to what was asked at a time; by default since the last failure.

        An answer to what was asked before that does not end the party's outage: more of what it asked then may fail.
        """
        now = self._clock()
        away, self._answered = now - self._answered, now
        if not self._failing:
            return
        if away > AWAY_SECONDS:
            for resume in self._returned:
                resume()
        with self._lock:
            if party not in self._failing or asked < self._failing[party]:
                return
            del self._failing[party]
            if self._failing:
                return
            self.error = None
            self._tell(OutageEnded(self._broker, now - self._since, self._failures))

    def note(self, party: str, error: BaseException) -> None:
        """Note a failure that begins an outage, or goes on with it."""
        with self._lock:  # also of the lines, which come in order
            if not self._failing:
                self._since, self._failures = self._clock(), 0
                self._tell(OutageBegan(self._broker, str(error)))
            self._failing[party] = self._clock()
            self._failures += 1
            self.error = str(error)
