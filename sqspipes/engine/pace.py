"""Pace: how many messages one task should hold, and when the next receive is worth its cost.

Only the leader touches these objects, so they have no lock.
"""

from __future__ import annotations

#: How many lanes a task holds beyond its workers. The first number holds until the first call has shown how long a
#: call takes. Later that is about a second's work, and never more than the second number.
FIRST_LOOK_AHEAD, MOST_LOOK_AHEAD = 10, 250

#: Bounds for one task. While the first number of messages of a level and of higher levels wait behind others in their
#: lanes, or twice the second number are parked, nothing of that level is received.
#: A message that fails waits for its backoff at the broker if more than the second number are parked, or if messages
#: wait behind it and more than half of the first number wait in all. If one of these messages was received too often
#: for that, the message that failed is parked here all the same.
MOST_BEHIND, MOST_PARKED = 1_000, 1_000

#: After so many failed calls in a row, or twice as many as there are workers if that is more, a task receives one
#: message at a time.
FAILURES_THAT_SLOW = 20

#: Arrivals are counted over a span of time. A span of more than twice the first number of seconds is cut to the first
#: number. A rate is taken over at least the second number of seconds.
ARRIVAL_SECONDS, SHORTEST_SECONDS = 1.0, 0.25

#: The next receive of a queue is put off only if at least so many messages are expected to come within a linger.
WORTH_WAITING = 2.0

#: The weight of the newest call in the moving average of seconds per call.
WEIGHT = 0.1


class Pace:
    """The pace of one task: what its rate allows, how long its calls take, and whether they fail.

    ``workers`` counts the messages that all calls together can take, ``rate`` the calls that may begin in a second.
    """

    def __init__(self, workers: int, rate: float | None = None) -> None:
        self._workers = workers
        self._rate = rate
        self._next_call = 0.0  # when the rate allows the next call
        self._seconds: float | None = None  # per call, a moving average; None before the first call
        self._failed_in_row = 0

    def seconds_to_call(self, now: float) -> float:
        """Return the seconds until the rate allows another call, 0 if a call may begin now."""
        return max(0.0, self._next_call - now)

    def begun(self, now: float) -> None:
        """Note that a call begins: the next call may begin ``1 / rate`` seconds later."""
        if self._rate is not None:
            self._next_call = now + 1 / self._rate

    def called(self, seconds: float, *, ok: bool) -> None:
        """Learn from a call that has ended how long calls take, and whether they fail."""
        self._seconds = (
            seconds if self._seconds is None else self._seconds + WEIGHT * (seconds - self._seconds)
        )
        self._failed_in_row = 0 if ok else self._failed_in_row + 1

    @property
    def probing(self) -> bool:
        """Whether the last calls all failed, so that the task receives one message at a time."""
        return self._failed_in_row >= max(FAILURES_THAT_SLOW, 2 * self._workers)

    @property
    def capacity(self) -> int:
        """The lanes that the task should hold.

        That is one lane for each worker, and about a second's work. With a rate that is what the rate allows in a
        second.
        """
        if self._rate is not None:
            return min(self._workers + MOST_LOOK_AHEAD, max(1, round(self._rate)))
        if self._seconds is None:
            return self._workers + FIRST_LOOK_AHEAD
        a_second = self._workers / max(self._seconds, 1e-4)  # a call may seem to take 0 s
        return self._workers + min(MOST_LOOK_AHEAD, int(a_second))


class Arrivals:
    """How many messages come from a queue in a second, counted over about the last 1 to 2 seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0.0

    def note(self, count: int, now: float) -> None:
        """Count the messages of an answer."""
        span = now - self._since
        if span > 2 * ARRIVAL_SECONDS:
            # Of the messages that came in the whole span, a proportional part counts for the span that is left.
            self._since = now - ARRIVAL_SECONDS
            self._count *= ARRIVAL_SECONDS / span
        self._count += count

    def rate(self, now: float) -> float:
        """Return how many messages come in a second."""
        return self._count / max(now - self._since, SHORTEST_SECONDS)

    def pause(self, linger: float, entries: int, now: float) -> float:
        """Return for how many seconds to put the next receive off, so that its answer is fuller.

        That is until ``entries`` messages are expected, ``linger`` at most, and 0 if few messages would come.
        """
        rate = self.rate(now)
        return min(linger, entries / rate) if rate * linger >= WORTH_WAITING else 0.0
