"""Outage: the one place that waits out a broker that does not answer, and says so once."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqspipes.errors import BrokerUnavailableError
from sqspipes.support import clocks, lines
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


class _OpenRequest:
    """A request under way; ``silent`` once it has had no answer for longer than any takes."""

    __slots__ = ("due", "party", "silent", "since")

    def __init__(self, party: str, since: float, due: float) -> None:
        self.party = party
        self.since = since
        self.due = due
        self.silent = False


class Outage:
    """The state of the way to one broker: WARNING when it begins and when it ends, nothing in between.

    It begins when a request fails a second time, and ends when every party that failed, a queue's requests of one
    kind, was answered again. A single failure that the next try mends is no outage, and is not logged above DEBUG.

    A request that neither answers nor fails for ``longest_answer`` seconds is an outage too. After as many again it
    is lost: ``look`` tells, and whoever asked must be given up.
    """

    def __init__(
        self, broker: str, longest_answer: float = math.inf, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._broker = broker
        self._clock = clock
        self._longest_answer = longest_answer
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._asked: set[_OpenRequest] = set()
        self._failures = 0
        self._since = 0.0
        self._answered = clock()
        self._returned: list[Callable[[], None]] = []
        self.error: str | None = None  #: what the last failed try said, while an outage lasts

    @contextmanager
    def asking(self, party: str) -> Iterator[None]:
        """Watch a request, from here to the end of the block."""
        now = self._clock()
        asked = _OpenRequest(party, now, now + self._longest_answer)
        with self._lock:
            self._asked.add(asked)
        try:
            yield
        finally:
            with self._lock:
                self._asked.discard(asked)

    def failed(self, party: str, error: BaseException, tries: int) -> float:
        """Note a failed request; return the seconds to wait before the next try of it."""
        logger.debug("%s: request to %s failed, try %d: %s", party, self._broker, tries, error)
        if tries > 1:
            with self._lock:
                self._note(party, error)
        return BACKOFF.seconds(tries)

    def on_return(self, resume: Callable[[], None]) -> None:
        """Have ``resume`` called when the broker answers after it was away: nobody need wait out a pause then."""
        self._returned.append(resume)

    def succeeded(self, party: str) -> None:
        """Note an answer."""
        now = self._clock()
        away, self._answered = now - self._answered, now
        if not self._failing:
            return
        if away > AWAY_SECONDS:
            for resume in self._returned:
                resume()
        with self._lock:
            if party not in self._failing:
                return
            self._failing.discard(party)
            if self._failing:
                return
            self.error = None
            logger.warning(
                "%s answers again after %.1f s and %d failed requests",
                self._broker, now - self._since, self._failures,
            )  # fmt: skip

    def look(self) -> tuple[list[tuple[str, BrokerUnavailableError]], float]:
        """Look at what is under way; return the requests that are lost, and the seconds to the next look.

        It takes two looks to lose one: a process that was itself stopped for a while does not give up on what is
        being answered.
        """
        now = self._clock()
        lost: list[tuple[str, BrokerUnavailableError]] = []
        with self._lock:
            for asked in self._asked:
                if asked.due > now:
                    continue
                error = BrokerUnavailableError(f"no answer, and no error, for {now - asked.since:.1f} s")
                if asked.silent:
                    lost.append((asked.party, error))
                else:
                    self._note(asked.party, error)
                asked.due = math.inf if asked.silent else now + self._longest_answer
                asked.silent = True
            due = min((asked.due for asked in self._asked), default=math.inf)
        return lost, min(due - now, self._longest_answer)

    def silent(self, party: str) -> int:
        """Count a party's requests that have had no answer for longer than any takes."""
        with self._lock:
            return sum(asked.silent and asked.party == party for asked in self._asked)

    def _note(self, party: str, error: BaseException) -> None:
        """Note a failure, and say so if an outage begins with it; the lock is held, so lines come in order."""
        if not self._failing:
            self._since, self._failures = self._clock(), 0
            logger.warning("%s does not answer, trying again until it does: %s", self._broker, error)
        self._failing.add(party)
        self._failures += 1
        self.error = str(error)
