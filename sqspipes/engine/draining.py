"""Draining: has everything gone through? Nothing may be held here, nothing wait or be in flight in any queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sqspipes.brokers.base import Depth, Limits
from sqspipes.brokers.exchange import Count
from sqspipes.engine.requests import PatientRequest, Requests

#: Seconds between the two sights of empty queues where counts are estimates: SQS's settle about a minute after
#: the last send. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html
SETTLING_SECONDS = 60.0

#: Seconds between looks while there is something left, on brokers with exact counts and on others.
EXACT_LOOK, ESTIMATED_LOOK = 0.05, 2.0

#: What the log calls the looks.
PART = "drain"


class Draining:
    """Counts the messages of queues, upstream first, until all were seen empty twice with nothing done in between.

    ``seconds`` is the time between the two sights, None for the broker's own. ``progress`` returns a number that
    grows with everything that the run does, ``is_idle`` says whether it holds nothing.
    """

    def __init__(
        self,
        requests: Requests,
        limits: Limits,
        queues: Sequence[str],
        seconds: float | None,
        progress: Callable[[], int],
        is_idle: Callable[[], bool],
    ) -> None:
        self.between = (0.0 if limits.exact else SETTLING_SECONDS) if seconds is None else seconds
        self._requests = requests
        self._queues = queues
        self._progress = progress
        self._is_idle = is_idle
        self._look_seconds = EXACT_LOOK if limits.exact else ESTIMATED_LOOK
        self._next_look = 0.0
        self._seen: tuple[float, int] | None = None  # when all was seen empty, and the progress by then
        self._request: PatientRequest | None = None
        self.is_drained = False

    @property
    def has_seen_empty(self) -> bool:
        """Whether the first of the two looks found nothing."""
        return self._seen is not None

    def look(self) -> float:
        """Look, if it is time; return when to look again, on the loop's clock."""
        now = self._requests.loop.now()
        if self._request is not None or now < self._next_look:
            return self._next_look if self._request is None else now + self._look_seconds
        self._next_look = now + self._look_seconds
        if self._is_idle():
            self._count(0, self._progress())
        else:
            self._seen = None
        return self._next_look

    def _count(self, number: int, progress: int) -> None:
        if number == len(self._queues):
            self._found_empty(progress)
            return
        request = Count(self._queues[number])
        self._request = self._requests.ask(
            PART, lambda tries: request, partial(self._counted, number, progress)
        )

    def _counted(self, number: int, progress: int, depth: Depth) -> None:
        asked, self._request = self._request, None
        has_failed = asked is not None and asked.tries > 0
        if depth.waiting or depth.in_flight or has_failed or not self._is_idle():
            self._seen = None
        else:
            self._count(number + 1, progress)

    def _found_empty(self, progress: int) -> None:
        now = self._requests.loop.now()
        if self._progress() != progress:
            self._seen = None
        elif self._seen is None or self._seen[1] != progress:
            self._seen = (now, progress)
            self._next_look = now + self.between
            if not self.between:
                self._count(0, progress)
        elif now >= self._seen[0] + self.between:
            self.is_drained = True
