"""Overdue: says so when a call runs for long, as nobody else could tell that it never returns."""

from __future__ import annotations

from collections.abc import Mapping

from sqspipes import lines
from sqspipes.runner.held import Held

logger = lines.logger(__name__)

#: Leases that a call may run for before the log mentions it; again each time when it has run twice as long. With
#: the default lease that is the five minutes for which the next queue would recognise the output of a second call.
LONG_LEASES = 5

#: Seconds for which one call may keep an event loop from all others before the log says so.
BLOCKED_SECONDS = 1.0


class Overdue:
    """Watches the running calls of one task: one WARNING for each that runs long, at doubled intervals."""

    def __init__(self, task: str, lease: float) -> None:
        self._task = task
        self._first = LONG_LEASES * lease
        self._due: dict[tuple[Held, float], float] = {}

    def look(self, running: Mapping[Held, float], now: float) -> float | None:
        """Warn of what is due; return the seconds until there may be more, None if nothing runs.

        ``running`` has when each call began, the oldest first.
        """
        oldest = next(iter(running.values()), None)
        if oldest is None or now < oldest + self._first:
            self._due.clear()
            return None if oldest is None else oldest + self._first - now
        self._due = {call: self._due.get(call, call[1] + self._first) for call in running.items()}
        for (held, began), due in self._due.items():
            if due <= now:
                seconds = now - began
                logger.warning(
                    "%s %s has been running for %.0f s and has not returned",
                    self._task,
                    held.message.id,
                    seconds,
                )
                self._due[held, began] = began + 2 * seconds
        return min(self._due.values()) - now
