"""Counters: what was asked for, by queue and action; and quotas, which count too."""

from __future__ import annotations

from collections.abc import Mapping

#: Requests that a quota lets through at once after a silence.
BURST = 30.0


class Count:
    """The requests of one action to one queue."""

    __slots__ = ("empty", "entries", "first", "last", "requests", "throttled")

    def __init__(self) -> None:
        self.requests = self.entries = self.throttled = self.empty = 0
        self.first = self.last = 0.0

    def shown(self) -> dict[str, float]:
        """Return the counts by their names."""
        return {name: getattr(self, name) for name in self.__slots__}


class Counters:
    """Counts by queue and action."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Count] = {}

    def of(self, queue: str, action: str) -> Count:
        """Return the count of an action to a queue."""
        count = self._counts.get((queue, action))
        if count is None:
            count = self._counts[queue, action] = Count()
        return count

    def count(self, queue: str, action: str, now: float) -> Count:
        """Count a request, and return the count."""
        count = self.of(queue, action)
        count.requests += 1
        count.first = count.first or now
        count.last = now
        return count

    def reset(self) -> None:
        """Begin at zero."""
        self._counts = {}

    def shown(self) -> list[Mapping[str, object]]:
        """Return all counts, a mapping for each queue and action."""
        return [
            {"queue": queue, "action": action, **count.shown()}
            for (queue, action), count in self._counts.items()
        ]


class Quota:
    """Lets so many requests a second through for each queue and action; 0 lets all through."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}

    def takes(self, queue: str, action: str, now: float) -> bool:
        """Say whether a request may be served; a batch costs as much as one message."""
        if not self._rate:
            return True
        key = queue, action.removesuffix("Batch")
        tokens, then = self._buckets.get(key, (BURST, now))
        tokens = min(BURST, tokens + (now - then) * self._rate)
        self._buckets[key] = max(0.0, tokens - 1) if tokens >= 1 else tokens, now
        return tokens >= 1
