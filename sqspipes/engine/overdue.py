"""Overdue: says so when a call runs for long, as nobody else could tell that it never returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqspipes.support import lines

logger = lines.logger(__name__)

#: Leases that a call may run for before the log mentions it; again each time when it has run twice as long. With
#: the default lease that is the five minutes for which the next queue would recognise the output of a second call.
LONG_LEASES = 5

#: Seconds for which one call may keep an event loop from all others before the log says so.
BLOCKED_SECONDS = 1.0


class Overdue:
    """Watches the running calls of one task: one WARNING for each that runs long, at doubled intervals.

    A call that has run for ``first`` seconds is warned of; ``name`` returns what the log calls it, by default
    its message's id.
    """

    def __init__(self, task: str, lease: float, name: Callable[[Any], str] | None = None) -> None:
        self._task = task
        self._name = name or (lambda held: str(held.message.id))
        self.first = LONG_LEASES * lease
        self._due: dict[tuple[Any, float], float] = {}

    def look(self, running: Mapping[Any, float], now: float) -> float | None:
        """Warn of what is due; return the seconds until there may be more, None if nothing runs.

        ``running`` has when each call began, the oldest first.
        """
        oldest = next(iter(running.values()), None)
        if oldest is None or now < oldest + self.first:
            self._due.clear()
            return None if oldest is None else oldest + self.first - now
        self._due = {pair: self._due.get(pair, pair[1] + self.first) for pair in running.items()}
        for (call, began), due in self._due.items():
            if due <= now:
                seconds = now - began
                logger.warning(
                    "%s %s has been running for %.0f s and has not returned",
                    self._task,
                    self._name(call),
                    seconds,
                )
                self._due[call, began] = began + 2 * seconds
        return min(self._due.values()) - now
