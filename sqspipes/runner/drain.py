"""Drain: has everything gone through? Nothing may be held here, nothing wait or be in flight in any queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqspipes.brokers.base import Broker
from sqspipes.errors import BrokerUnavailableError
from sqspipes.runner.outage import Outage
from sqspipes.support import clocks

#: Seconds between the two sights of empty queues where counts are estimates: SQS's settle about a minute after
#: the last send. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
SETTLING_SECONDS = 60.0

#: Seconds between looks while there is something left, on brokers with exact counts and on others.
EXACT_LOOK, ESTIMATED_LOOK = 0.05, 2.0

#: What the log calls the looks.
PART = "drain"


class Drain:
    """Looks at queues, upstream first, until they have been seen empty twice with nothing happening in between."""

    def __init__(
        self,
        broker: Broker,
        outage: Outage,
        queues: Sequence[str],
        seconds: float | None,
        progress: Callable[[], int],
    ) -> None:
        exact = broker.limits.exact
        self._broker = broker
        self._outage = outage
        self._tries = 0
        self._not_before = 0.0
        self._queues = queues
        self.between = (0.0 if exact else SETTLING_SECONDS) if seconds is None else seconds
        self._look = EXACT_LOOK if exact else ESTIMATED_LOOK
        self._progress = progress
        self._seen: tuple[float, int] | None = None

    @property
    def seen_empty(self) -> bool:
        """Whether the first of the two looks found nothing."""
        return self._seen is not None

    def pause(self) -> float:
        """Return the seconds until the next look."""
        due = self._not_before if self._seen is None else self._seen[0] + self.between
        return max(self._look, due - clocks.monotonic())

    def done(self, idle: bool) -> bool:
        """Look once, if nothing is held here; say whether all is through."""
        if not idle or clocks.monotonic() < self._not_before:
            self._seen = None
            return False
        progress = self._progress()
        if not self._empty():
            self._seen = None
            return False
        if self._seen is None or self._seen[1] != progress:
            self._seen = (clocks.monotonic(), progress)
            if self.between > 0:
                return False
            return self._empty() and self._progress() == progress
        return clocks.monotonic() >= self._seen[0] + self.between and self._progress() == progress

    def _empty(self) -> bool:
        try:
            empty = not any(map(self._holds, self._queues))
        except BrokerUnavailableError as error:
            self._tries += 1
            self._not_before = clocks.monotonic() + self._outage.failed(PART, error, self._tries)
            return False
        self._tries = 0
        self._outage.succeeded(PART)
        return empty

    def _holds(self, queue: str) -> bool:
        with self._outage.asking(PART):
            depth = self._broker.depth(queue)
        return depth.waiting > 0 or depth.in_flight > 0
