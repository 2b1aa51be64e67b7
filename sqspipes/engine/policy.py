"""Policy: whether a task's calls are made by the leader itself or by threads."""

from __future__ import annotations

#: Seconds waited per call, on average, from which on threads are cheaper. Measured: a change of threads costs about
#: as much (benchmarks, jobs *busy* and *short tasks*).
WORTH_A_THREAD = 0.0002

#: Seconds of one call that count at most: a longer one is given to another thread anyway.
MOST_COUNTED = 0.003

#: The weight of the newest call in the average.
WEIGHT = 1 / 64

#: Seconds until the leader tries calls of a task again whose calls lasted: the first pause, doubling to the longest.
FIRST_DOUBT, LONGEST_DOUBT = 0.05, 8.0

#: Trials in a row that must be short.
GOOD_TRIALS = 3


class CallPolicy:
    """Learns from the seconds that calls waited: for a server, a lock, the disk; computing is no waiting.

    A task begins with calls by the leader. Once its calls wait for long they are given to threads; trials by the
    leader find out when they are short again.
    """

    __slots__ = ("_doubt", "_good", "_samples", "_trial_at", "_waits")

    def __init__(self) -> None:
        self._waits = 0.0
        self._samples = 0
        self._trial_at = 0.0
        self._doubt = FIRST_DOUBT
        self._good = 0

    def is_short(self, now: float) -> bool:
        """Say whether the next call is to be made by the leader."""
        return self._waits < WORTH_A_THREAD or now >= self._trial_at

    @property
    def measures(self) -> bool:
        """Whether calls are so long that it matters what of them is computed; to ask takes a microsecond."""
        return self._waits > WORTH_A_THREAD / 4

    def learn(self, waited: float, now: float) -> None:
        """Learn from a call by the leader that waited so many seconds."""
        if self._waits >= WORTH_A_THREAD:
            self._learn_from_trial(waited, now)
            return
        self._samples += 1
        self._waits += (min(waited, MOST_COUNTED) - self._waits) * max(WEIGHT, 1 / self._samples)
        if self._waits >= WORTH_A_THREAD:
            self._trial_at, self._good = now + self._doubt, 0

    def _learn_from_trial(self, waited: float, now: float) -> None:
        if waited >= WORTH_A_THREAD:
            self._good = 0
            self._trial_at, self._doubt = now + self._doubt, min(LONGEST_DOUBT, 2 * self._doubt)
            return
        self._good += 1
        if self._good >= GOOD_TRIALS:
            self._waits, self._doubt, self._samples = WORTH_A_THREAD / 2, FIRST_DOUBT, 0
