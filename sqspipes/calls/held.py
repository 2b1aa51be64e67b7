"""What a run holds: received messages, and the outputs whose safety they wait for."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Hashable
from typing import NamedTuple

from sqspipes.brokers.base import Entry
from sqspipes.events import HandedOn
from sqspipes.messages.message import Delivery, Message

#: A delivery received more often than this may be one that kills its process: it runs alone.
MOST_INNOCENT_RECEIVES = 3

#: Outputs of one message that are remembered for its next attempt.
MOST_HANDED_ON = 10_000


class Origin:
    """Where outputs come from: ``unsafe`` counts those not yet stored in the next queue.

    ``refused`` is the reason why one of them can never be stored, or None. ``forgotten``: one of them will never
    be safe, as nobody reads the results any more.
    """

    __slots__ = ("forgotten", "refused", "unsafe")

    def __init__(self) -> None:
        self.unsafe = 0
        self.forgotten = False
        self.refused: str | None = None


class Parcel(NamedTuple):
    """One output on its way to a queue, within ``linger`` seconds.

    ``arrived`` runs once it is safe; ``freed`` once its queue has answered, whatever it
    said. ``output`` is what the message remembers it by, ``event`` what listeners are told once it is safe.
    """

    origin: Origin
    queue: str
    entry: Entry
    arrived: Callable[[], None] | None = None
    linger: float = 0.0
    output: Hashable = None
    freed: Callable[[], object] | None = None
    event: HandedOn | None = None


class SafeOutputs:
    """The outputs of one message that are safe, the newest of them: its next attempt does not send them again.

    A queue knows an id for five minutes only, and attempts may be further apart.
    """

    __slots__ = ("_before", "_lock", "_repeated", "_safe")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._safe: dict[Hashable, int] = {}  # and how often each was sent
        self._before: dict[Hashable, int] = {}  # the same, when this attempt began
        self._repeated: dict[Hashable, int] = {}  # and how often this attempt had it

    def note(self, output: Hashable) -> None:
        """Note an output that is safe."""
        with self._lock:
            self._safe[output] = self._safe.pop(output, 0) + 1
            if len(self._safe) > MOST_HANDED_ON:
                del self._safe[next(iter(self._safe))]

    def begin(self) -> None:
        """Begin another attempt."""
        with self._lock:
            self._before, self._repeated = dict(self._safe), {}

    def had(self, output: Hashable) -> bool:
        """Say whether an attempt before this one made an output safe that this one has now."""
        if output not in self._before:
            return False
        times = self._repeated[output] = self._repeated.get(output, 0) + 1
        return times <= self._before[output]


class State(enum.Enum):
    """Where a held message is on its way."""

    WAITING = "waiting"  #: behind its lane-mates, or at the head of a ready lane
    RUNNING = "running"
    PARKED = "parked"  #: in backoff
    SETTLING = "settling"  #: run; its outputs or its acknowledgement are under way
    OVER = "over"  #: acknowledged, given back or dropped


class Held(Origin):
    """One received message while this process has it: its newest receipt, its lease, its failures so far.

    ``key`` is queue and broker's message id: the same over all its deliveries. ``given_back`` counts the receives
    that ended because this process gave it back for its backoff; without these it is ``redelivered`` if it was
    received before, and a ``suspect`` if that was so often that it may kill its process. ``asked`` and
    ``extending`` are the receipts of its acknowledgement and of its extend under way: a redelivery may bring a
    newer one meanwhile. ``expires`` and ``extend_at`` are on the run's lease clock, ``extend_asked`` has when
    the extend was asked for, on that clock, and for how many seconds. ``linger`` is how many seconds its
    acknowledgement may wait for others. ``result`` is the last output of its call, which goes when the call has
    ended. ``done`` is set when its call is over for good, ``buried`` when that made a dead letter.
    ``handed_on`` has the outputs that are safe, if its call was not over by then.
    """

    __slots__ = (
        "asked", "buried", "delivery", "done", "expires", "extend_asked", "extend_at", "extending", "failures",
        "given_back", "handed_on", "key", "lane", "lease", "level", "linger", "lost", "message", "received",
        "receipt", "redelivered", "result", "state", "suspect",
    )  # fmt: skip

    def __init__(
        self,
        delivery: Delivery,
        message: Message,
        level: int,
        lease: float,
        received: float,
        linger: float = 0.0,
        failures: int = 0,
        given_back: int = 0,
    ) -> None:
        self.unsafe = 0
        self.forgotten = False
        self.refused = None
        queue, id, receipt, receives, *_ = delivery
        self.delivery = delivery
        self.key = (queue, id)
        self.given_back = given_back
        self.redelivered = receives - given_back > 1
        self.suspect = receives - given_back > MOST_INNOCENT_RECEIVES
        self.message = message
        self.level = level
        self.lease = lease
        self.received = received
        self.linger = linger
        self.receipt = self.asked = self.extending = receipt
        self.expires = received + lease
        self.extend_at = received + lease / 2
        self.extend_asked = (received, lease)
        self.failures = failures
        self.state = State.WAITING
        self.lane: Lane | None = None
        self.result: Parcel | None = None
        self.handed_on: SafeOutputs | None = None
        self.done = False
        self.buried = False
        self.lost = False

    def note_safe(self, output: Hashable) -> None:
        """Remember an output that is safe, in case there is another attempt."""
        if self.handed_on is None:
            self.handed_on = SafeOutputs()
        self.handed_on.note(output)


class Lane:
    """The held messages of one group of one queue, in order; the first of them may run."""

    __slots__ = ("key", "messages")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        # Not a deque: most lanes hold one message, and an empty deque takes 600 bytes.
        self.messages: list[Held] = []
