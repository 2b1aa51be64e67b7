"""Backoff: pauses between tries that grow exponentially up to a longest one."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Tries beyond which no pause grows: no power of the factor gets too large to compute.
_MOST_TRIES = 64


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """Pauses from ``first`` to ``longest`` seconds, each ``factor`` times as long as the one before.

    ``jitter`` is the part of a pause that is left to chance: 0 for none, 1 for all of it, so that many who failed at
    the same moment do not try again at the same moment.
    """

    first: float
    longest: float
    jitter: float = 0.0
    factor: float = 2.0

    def seconds(self, tries: int) -> float:
        """Return the seconds to wait after so many failed tries in a row; 1 is the first."""
        full = min(self.longest, self.first * self.factor ** min(tries - 1, _MOST_TRIES))
        return random.uniform(full * (1 - self.jitter), full) if self.jitter else full
