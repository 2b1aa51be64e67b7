"""Incoming: makes what a receive gave into messages that are held. A redelivered message is never called twice."""

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

#: Seconds for which a body of a newer format is given back the first time, doubling with each receive, so that
#: it outlasts a slow roll-out without reaching the broker's own limit of receives.
NEWER_FORMAT_SECONDS = 30.0

#: Lingers for which the acknowledgement of a message put without a group may wait for others: nobody waits for it.
#: One of a group waits a single linger, as the rest of the group is handed out after it.
LINGERS_OF_ACK = 4


class Taken(NamedTuple):
    """What a receive brought: messages that are held from now on, and what is to be learnt from all it gave."""

    new: Sequence[Held]
    is_grouped: bool  #: some of it was put with a group
    is_suspicious: bool  #: some of it may kill its process


class Incoming:
    """Takes in what is received for one task. What was received before is renewed, acknowledged or given back."""

    def __init__(self, task: Task, shared: EngineShared, limits: Limits, linger: float) -> None:
        self._task = task
        self._shared = shared
        self._settling = shared.settling
        self._limits = limits
        self._linger = linger

    def take(self, received: Received) -> Taken:
        """Take in the answer to a receive."""
        often = [one for one in received.deliveries if one.receives > MOST_INNOCENT_RECEIVES]
        is_suspicious = any(map(self._is_suspicious, often))
        if not received.deliveries:
            return Taken([], is_grouped=False, is_suspicious=is_suspicious)
        new = self._new(received)
        if not self._shared.heard.is_set():  # to set it takes longer
            self._shared.heard.set()
        if often and len(new) > 1 and any(held.suspect for held in new):
            # It comes again alone: of the receives that bury a killer, only some are its company's too.
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
        blocked: set[str] = set()  # groups whose first message was given back: the rest would overtake it
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
        """Return a delivery's message; one that cannot be read goes through its lane to the dead letters."""
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
            return foreign(delivery, raw=delivery.body, level=level)

    def _is_suspicious(self, delivery: Delivery) -> bool:
        """Say whether a message was received so often, by others or before, that it may kill its process."""
        return delivery.receives - self._shared.attempts.of(delivery).given_back > MOST_INNOCENT_RECEIVES
