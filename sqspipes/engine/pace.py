"""Pace: how much work one task should hold, and when it is worth asking for more."""

from __future__ import annotations

#: Lanes held beyond the workers: about a second's work, at least what one receive brings until the first call
#: has shown how long it takes, and never more than some receives' worth.
FIRST_LOOK_AHEAD, MOST_LOOK_AHEAD = 10, 250

#: Messages that may wait behind their lane-mates, and messages in backoff, per task. What fails beyond that is given
#: back to the broker for its backoff; what has been given out so often that it is not, as many again at most.
MOST_BEHIND, MOST_PARKED = 1_000, 1_000

#: Failed calls in a row, or twice the workers if that is more, that make a task take in one message at a time.
FAILURES_THAT_SLOW = 20

#: Seconds of arrivals that are remembered, and of the shortest time that a rate is taken from.
ARRIVAL_SECONDS, SHORTEST_SECONDS = 1.0, 0.25

#: Messages to be expected during a linger that make it worth while.
WORTH_WAITING = 2.0

#: The weight of the newest call in the moving average of seconds per call.
WEIGHT = 0.1


class Pace:
    """The pace of one task; its owner holds the lock."""

    def __init__(self, workers: int, rate: float | None = None) -> None:
        self._workers = workers
        self._rate = rate
        self._next_call = 0.0
        self._seconds: float | None = None
        self._failed_in_row = 0

    def seconds_to_call(self, now: float) -> float:
        """Return the seconds until the rate allows another call, 0 for at once."""
        return max(0.0, self._next_call - now)

    def begun(self, now: float) -> None:
        """Note a call that begins: the next one is a whole interval of the rate later."""
        if self._rate is not None:
            self._next_call = now + 1 / self._rate

    def called(self, seconds: float, *, ok: bool) -> None:
        """Learn from a call."""
        self._seconds = (
            seconds if self._seconds is None else self._seconds + WEIGHT * (seconds - self._seconds)
        )
        self._failed_in_row = 0 if ok else self._failed_in_row + 1

    @property
    def probing(self) -> bool:
        """Whether the last calls all failed, so that only one new message is taken in at a time."""
        return self._failed_in_row >= max(FAILURES_THAT_SLOW, 2 * self._workers)

    @property
    def capacity(self) -> int:
        """Lanes to hold: the workers, and about a second's work; with a rate, what it allows in a second."""
        if self._rate is not None:
            return min(self._workers + MOST_LOOK_AHEAD, max(1, round(self._rate)))
        if self._seconds is None:
            return self._workers + FIRST_LOOK_AHEAD
        a_second = self._workers / max(self._seconds, 1e-4)
        return self._workers + min(MOST_LOOK_AHEAD, int(a_second))


class Arrivals:
    """How many messages a queue brings a second, by the last seconds; its owner holds the lock."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0.0

    def note(self, count: int, now: float) -> None:
        """Learn from an answer."""
        span = now - self._since
        if span > 2 * ARRIVAL_SECONDS:
            self._since = now - ARRIVAL_SECONDS
            self._count *= ARRIVAL_SECONDS / span
        self._count += count

    def rate(self, now: float) -> float:
        """Return how many messages come in a second."""
        return self._count / max(now - self._since, SHORTEST_SECONDS)

    def pause(self, linger: float, entries: int, now: float) -> float:
        """Return the seconds to wait for a fuller answer, ``linger`` at most: none where hardly any would come."""
        rate = self.rate(now)
        return min(linger, entries / rate) if rate * linger >= WORTH_WAITING else 0.0
