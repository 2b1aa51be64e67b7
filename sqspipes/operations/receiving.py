"""Receiving outside a run: a queue is received batch by batch; what is not settled is given back."""

from __future__ import annotations

import math
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple, TypeVar

from sqspipes.brokers.base import Answer, Broker, Kind
from sqspipes.defaults import TIMEOUT
from sqspipes.errors import BrokerError, BrokerUnavailableError, CredentialsError
from sqspipes.messages.message import Delivery
from sqspipes.operations.patience import patiently
from sqspipes.support import clocks, lines
from sqspipes.support.workers import Workers

logger = lines.logger(__name__)

#: Seconds for which a message is hidden from others while somebody looks: its lease.
LISTING_SECONDS = 60.0

#: The part of that time in which messages are received. After it the first ones come back by themselves.
LOOKING_PART = 0.9

#: Seconds to wait for more where an answer may be empty though the queue is not.
LAST_LOOK_SECONDS = 1.0

#: Messages of one receive: as many as SQS gives. One may have 1 MiB.
MOST_AT_ONCE = 10

#: Receives, or requests that give back, under way at once.
MOST_TOGETHER = 4

Item = TypeVar("Item")


class _Hold(NamedTuple):
    """A message that is held: its receipt, and when it comes back by itself (monotonic clock)."""

    receipt: str
    ends: float


class Look:
    """One look through a queue. Each message is found once, and held until it is settled or given back.

    ``together``: how many receives may overlap. ``endless``: messages are received for as long as there are any, as
    those that were found are settled soon. ``most`` is how many one receive takes, ``lease`` for how many seconds
    they are hidden, ``LISTING_SECONDS`` by default.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        *,
        together: int = 1,
        endless: bool = False,
        most: int = MOST_AT_ONCE,
        lease: float | None = None,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._together = min(together, MOST_TOGETHER)
        self._most = min(broker.limits.entries, most)
        self._lease = LISTING_SECONDS if lease is None else lease
        self._deadline = math.inf if endless else clocks.monotonic() + self._lease * LOOKING_PART
        self._held: dict[str, _Hold] = {}
        self._seen: set[str] = set()
        self._late = False
        self._cut = False

    def batches(self) -> Iterator[list[Delivery]]:
        """Yield what the queue hands out until it hands out nothing, or until the time is over."""
        for batch in self._received():
            new = [delivery for delivery in batch if delivery.id not in self._seen]
            self._seen.update(delivery.id for delivery in new)
            groups = Counter(delivery.group for delivery in batch)
            self._cut |= len(batch) == self._most and groups[batch[-1].group] > 1
            if new:
                yield new

    def receive(self, wait: float) -> list[Delivery]:
        """Receive once, waiting so many seconds for a message, and hold what came; it may have been found before.

        A receive that is repeated after a lost answer brings the same messages.
        """
        attempt, began = uuid.uuid4().hex, clocks.monotonic()
        batch = patiently(
            lambda: self._broker.receive(
                self._queue, count=self._most, wait=wait, lease=self._lease, attempt=attempt
            ),
            TIMEOUT + wait,
        )
        for delivery in batch:
            self._held[delivery.id] = _Hold(delivery.receipt, began + self._lease)
        return batch

    def holds(self, delivery: Delivery) -> bool:
        """Say whether a message is held: it was neither deleted nor lost."""
        return delivery.id in self._held

    def is_late(self, deliveries: Collection[Delivery]) -> bool:
        """Say whether half of the time is over in which some of these messages are certainly held."""
        soon = clocks.monotonic() + self._lease / 2
        return any(self._held[one.id].ends < soon for one in deliveries if self.holds(one))

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Hold messages from now on for a full lease; those that are lost are held no more."""
        began = clocks.monotonic()
        answers = self.ask(
            lambda some: self._broker.extend(self._queue, [(one.receipt, self._lease) for one in some]),
            deliveries,
        )
        for delivery, answer in answers:
            if answer.kind is Kind.OK:
                self._held[delivery.id] = _Hold(delivery.receipt, began + self._lease)
            else:
                self._held.pop(delivery.id, None)

    def delete(self, deliveries: Sequence[Delivery], seconds: float = TIMEOUT) -> list[Delivery]:
        """Delete messages; return those that are gone by it, and not those whose lease was lost."""
        answers: list[tuple[Delivery, Answer]] = []
        try:
            for some in _batches(deliveries, self._broker.limits.entries):
                self.ask(
                    lambda some: self._broker.ack(self._queue, [one.receipt for one in some]),
                    some,
                    seconds,
                    answers,
                )
        finally:
            for delivery, answer in answers:
                if answer.kind in (Kind.OK, Kind.GONE):
                    self._held.pop(delivery.id, None)
        return [delivery for delivery, answer in answers if answer.kind is Kind.OK]

    def ask(
        self,
        request: Callable[[Sequence[Item]], list[Answer]],
        items: Sequence[Item],
        seconds: float = TIMEOUT,
        answers: list[tuple[Item, Answer]] | None = None,
    ) -> list[tuple[Item, Answer]]:
        """Ask for items, and again for those alone that are to be asked again; return each with its answer."""
        found = [] if answers is None else answers
        left = list(items)

        def once() -> None:
            pairs = list(zip(left, request(left), strict=True))
            found.extend(pair for pair in pairs if pair[1].kind is not Kind.AGAIN)
            again = [pair for pair in pairs if pair[1].kind is Kind.AGAIN]
            left[:] = [item for item, _ in again]
            if again:
                raise BrokerUnavailableError(f"queue {self._queue}: {again[0][1].reason}")

        if left:
            patiently(once, seconds)
        return found

    def missing(self) -> str:
        """Say what the queue has beside the messages that were found; nothing if that were all.

        Where the broker estimates its counts this does so, too.
        """
        if self._late:
            return f"after {self._lease * LOOKING_PART:g} s there were still more"
        try:
            depth = patiently(lambda: self._broker.depth(self._queue))
        except CredentialsError:  # no right to count
            return "more may wait behind them in their groups" if self._cut else ""
        more = max(0, depth.waiting + depth.in_flight - len(self._held))
        elsewhere = min(more, max(0, depth.in_flight - len(self._held)))
        parts = []
        if more - elsewhere:
            parts.append(f"{more - elsewhere:,} more wait behind others of their groups")
        if elsewhere:
            parts.append(f"{elsewhere:,} more are held elsewhere now")
        about = "" if self._broker.limits.exact or not parts else "about "
        return about + " and ".join(parts)

    def give_back(self) -> None:
        """Give back what is held; where the broker does not answer it comes back when its lease ends."""
        now = clocks.monotonic()
        receipts = [hold.receipt for hold in self._held.values() if hold.ends > now]
        self._held.clear()
        batches = list(_batches(receipts, min(self._broker.limits.entries, MOST_AT_ONCE)))
        try:
            if self._together == 1 or len(batches) < 2:
                for batch in batches:
                    self._give_back(batch)
            else:
                with Workers(self._together, "sqspipes receiving") as pool:
                    asked = [pool.submit(self._give_back, batch) for batch in batches]
                    try:
                        for one in asked:
                            one.result()
                    finally:
                        pool.shutdown(wait=True, cancel_futures=True)
        except (
            BrokerError,
            RuntimeError,
        ) as error:  # a RuntimeError: the interpreter ends, no thread can start
            logger.debug("%s: messages stay hidden until their lease ends: %s", self._queue, error)

    def _give_back(self, receipts: Sequence[str]) -> None:
        self.ask(
            lambda some: self._broker.extend(self._queue, [(receipt, 0.0) for receipt in some]),
            receipts,
            LAST_LOOK_SECONDS,
        )

    # Receiving

    @property
    def _sure(self) -> float:
        """Seconds for which a receive has to wait so that an empty answer means an empty queue."""
        return 0.0 if self._broker.limits.exact else LAST_LOOK_SECONDS

    def _received(self) -> Iterator[list[Delivery]]:
        if self._together > 1:
            yield from self._received_together()
            return
        while not self._is_over():
            batch = self.receive(self._sure)
            if not batch:
                return
            yield batch

    def _received_together(self) -> Iterator[list[Delivery]]:
        """Yield answers in the order of their requests; while they are full, several requests are under way."""
        flying: deque[Future[list[Delivery]]] = deque()
        room, empty = 1, False
        with Workers(self._together, "sqspipes receiving") as pool:
            try:
                while True:
                    while len(flying) < room and not empty and not self._is_over():
                        flying.append(pool.submit(self.receive, self._sure))
                    if not flying:
                        return
                    batch = flying[0].result()
                    flying.popleft()
                    room = self._together if len(batch) == self._most else 1
                    empty = empty or not batch
                    if batch:
                        yield batch
            finally:
                for one in flying:
                    with suppress(BrokerError):  # it is waited for: what it took is held, and given back
                        one.result()

    def _is_over(self) -> bool:
        self._late = clocks.monotonic() >= self._deadline
        return self._late


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
