"""Attempts: what a run remembers of messages that it gave back to the broker for their backoff."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from sqspipes.calls.held import Held
from sqspipes.messages.message import Delivery

#: Messages that are remembered; the oldest are forgotten.
MOST_REMEMBERED = 100_000


class Attempt(NamedTuple):
    """A message's failed calls here, and how many of its receives ended because it was given back here."""

    failures: int = 0
    given_back: int = 0


class Attempts:
    """The attempts of messages that are not held now, by queue and broker's message id."""

    def __init__(self) -> None:
        self._of: OrderedDict[tuple[str, str], Attempt] = OrderedDict()

    def remember(self, held: Held) -> None:
        """Remember a message that is given back now."""
        self._of[held.key] = Attempt(held.failures, held.given_back + 1)
        if len(self._of) > MOST_REMEMBERED:
            self._of.popitem(last=False)

    def of(self, delivery: Delivery) -> Attempt:
        """Return what is remembered of a message."""
        return self._of.get((delivery.queue, delivery.id), _NOTHING)

    def recall(self, delivery: Delivery) -> Attempt:
        """Return what is remembered of a message that is held from now on, and forget it."""
        if not self._of:
            return _NOTHING
        return self._of.pop((delivery.queue, delivery.id), _NOTHING)


_NOTHING = Attempt()
