"""Incoming: makes held messages of the deliveries of a receive. A redelivered message is never called twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.brokers.base import Limits
from sqspipes.calls.held import MOST_INNOCENT_RECEIVES, Held
from sqspipes.engine.levels import Received
from sqspipes.engine.shared import EngineShared
from sqspipes.errors import DecodingError, NewerFormatError
from sqspipes.messages.body import decode, foreign
from sqspipes.messages.message import Delivery, Message
from sqspipes.support import lines
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.tasks.task import Task

logger = lines.logger(__name__)

#: A message whose body has a newer format is given back for this many seconds at its first receive. The seconds
#: double with each receive, so that the message outlasts a slow roll-out before the broker's limit of receives.
NEWER_FORMAT_SECONDS = 30.0

#: Lingers for which the acknowledgement of a message without a group may wait for others: no message waits for it.
#: The acknowledgement of a message with a group waits 1 linger: the rest of the group is handed out only after it.
LINGERS_OF_ACK = 4


class Taken(NamedTuple):
    """What a receive brought: ``new`` are the messages that are held from now on."""

    new: Sequence[Held]
    is_grouped: bool  #: a message of ``new`` was put with a group
    is_suspicious: bool  #: a message of the receive, held or not, may kill its process


class Incoming:
    """Takes in the deliveries of one task: each is held, renews a lease, is acknowledged, or is given back."""

    def __init__(self, task: Task, shared: EngineShared, limits: Limits, linger: float) -> None:
        self._task = task
        self._shared = shared
        self._settling = shared.settling
        self._limits = limits
        self._linger = linger

    def take(self, received: Received) -> Taken:
        """Take in the answer to a receive; return what it brought."""
        often = [one for one in received.deliveries if one.receives > MOST_INNOCENT_RECEIVES]
        is_suspicious = any(map(self._is_suspicious, often))
        if not received.deliveries:
            return Taken([], is_grouped=False, is_suspicious=is_suspicious)
        new = self._new(received)
        if not self._shared.heard.is_set():  # To set an event takes longer than to look at it.
            self._shared.heard.set()
        if often and len(new) > 1 and any(held.suspect for held in new):
            # The next receives take 1 message each. Without that, each time that the suspect kills its process would
            # cost all messages that came with it a receive, too.
            for held in new:
                self._shared.attempts.remember(held)
                self._settling.give_back_delivery(held.delivery)
            return Taken([], is_grouped=False, is_suspicious=is_suspicious)
        self._shared.leases.hold(new)
        is_grouped = any(held.message.group is not None for held in new)
        return Taken(new, is_grouped, is_suspicious)

    def _new(self, received: Received) -> list[Held]:
        shared, number, began, lease = (
            self._shared,
            received.level.number,
            received.received,
            self._task.lease,
        )
        leases, recall = shared.leases, shared.attempts.recall
        linger, long_linger = self._linger, LINGERS_OF_ACK * self._linger
        new: list[Held] = []
        blocked: set[str] = set()  # Groups of a message that was given back: the rest would overtake it.
        for delivery in received.deliveries:
            if blocked and delivery.group in blocked:
                self._settling.give_back_delivery(delivery)
            elif leases.renew(delivery, began, lease):
                continue
            elif leases.was_handed_on(delivery):
                self._settling.acknowledge_delivery(delivery)
            elif (message := self._read(delivery, number)) is None:
                blocked.add(delivery.group)
            else:
                lingers = long_linger if message.group is None else linger
                new.append(Held(delivery, message, number, lease, began, lingers, *recall(delivery)))
        return new

    def _read(self, delivery: Delivery, level: int) -> Message | None:
        """Return the message of a delivery; if its format is newer than ours, give it back and return None."""
        try:
            return decode(delivery, level)
        except NewerFormatError as error:
            backoff = ExponentialBackoff(NEWER_FORMAT_SECONDS, self._limits.longest_lease)
            delay = backoff.seconds(delivery.receives)
            logger.warning(
                "%s: message %s given back for %.0f s: %s", self._task.name, delivery.id, delay, error
            )
            self._settling.give_back_delivery(delivery, delay)
            return None
        except DecodingError:
            # It becomes a dead letter when its turn comes in its lane, not before the messages ahead of it.
            return foreign(delivery, raw=delivery.body, level=level)

    def _is_suspicious(self, delivery: Delivery) -> bool:
        """Say whether a message may kill its process: it was received often, not counting what this run gave back."""
        return delivery.receives - self._shared.attempts.of(delivery).given_back > MOST_INNOCENT_RECEIVES
