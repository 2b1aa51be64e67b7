"""The Broker port: FIFO queues of opaque text, with SQS's rules on every broker.

A broker knows no task and never parses a body. The rules that each one keeps:

- Messages of one group leave in the order in which they came. While one of them is in flight, nothing more of
  its group is handed out, except inside the one receive that took it.
- A received message is invisible for its lease. Then it comes back, with its receive count one higher.
- A message's id is the same at each receive, and no other message of the broker has it: in no queue, and at no time,
  also after a purge, and in a file or a key space that is made anew in the place of one. What was put back from a
  dead-letter queue is another message.
- The same deduplication id again within five minutes, in the same queue and group: accepted, not stored. Also
  when the message is long gone.
- A receipt is good for its own delivery only: after the lease ended, or a newer receive, the answer is GONE.
- A message received more than ``max_receives`` times moves to the dead-letter queue, if the queue has one.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqspipes.defaults import (
    ENTRIES,
    LEASE,
    LONGEST_VISIBILITY,
    LONGEST_WAIT,
    MAX_RECEIVES,
    MESSAGE_BYTES,
)
from sqspipes.messages.message import Delivery

#: What a queue's name begins with that is none of ours: ``rpush@key`` is a plain list of the broker's server, where
#: its limits say that it has lists. It is only sent to, and then the bodies are pushed to its end as they are.
LIST = "rpush@"


class Kind(enum.Enum):
    """What became of one entry of a batch."""

    OK = "ok"  #: done
    GONE = "gone"  #: the lease is lost, the receipt is good for nothing
    AGAIN = "again"  #: not done, the same entry may be sent again
    NEVER = "never"  #: not done, and it never will be; the reason says why


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer to one entry of a batch, in the order of the entries."""

    kind: Kind
    reason: str = ""


#: The answer that is the same every time.
OK = Answer(Kind.OK)


class Entry(NamedTuple):
    """One message to send: ASCII text, and the group and deduplication id in SQS's own alphabet."""

    body: str
    group: str
    id: str

    @property
    def size(self) -> int:
        """The body's bytes, as limits count them."""
        return len(self.body) if self.body.isascii() else len(self.body.encode("utf-8", "surrogatepass"))


def list_key(queue: str) -> str | None:
    """Return the key of the plain list that a queue's name stands for, or None."""
    return queue[len(LIST) :] if queue.startswith(LIST) else None


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as it should be made.

    ``dead_letters`` names the queue for messages received too often, or None. ``attributes`` are further
    attributes in the broker's own words, ``tags`` are those that it is made with.
    """

    name: str
    lease: float = LEASE
    dead_letters: str | None = None
    max_receives: int = MAX_RECEIVES
    high_throughput: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one broker can do.

    ``entries`` and ``request_bytes`` bound a request, ``message_bytes`` a body. ``longest_wait`` and
    ``longest_lease`` are seconds. ``exact``: depths are counted, not estimated. ``clean_interrupt``: an
    interrupted receive took nothing. ``linger``: seconds that a request is worth waiting for to be full, where
    nobody says otherwise. ``requests_in_flight``: how many requests of one kind to one queue gain something by
    overlapping.
    ``longest_answer``: seconds within which every request has answered or failed, a poll's wait and all timeouts
    included. One that takes longer is an outage, and one that takes twice as long ends the run.
    ``control_interval``: seconds between two looks of a run at its control word, where nobody says otherwise.
    ``lists``: ``send`` takes the name of a plain list, too.
    """

    entries: int = ENTRIES
    request_bytes: int = MESSAGE_BYTES
    message_bytes: int = MESSAGE_BYTES
    longest_wait: float = LONGEST_WAIT
    longest_lease: float = LONGEST_VISIBILITY
    exact: bool = True
    clean_interrupt: bool = True
    linger: float = 0.0
    requests_in_flight: int = 1
    longest_answer: float = 60.0
    control_interval: float = 2.0
    lists: bool = False


@dataclass(frozen=True, slots=True)
class Depth:
    """How many messages a queue holds: those that wait (blocked behind their group too), those in flight."""

    waiting: int
    in_flight: int


class Broker(ABC):
    """Queues of text. All methods are thread-safe.

    Every method raises ``BrokerUnavailableError`` for what may pass (try again), ``QueueMissingError``,
    ``CredentialsError`` or another ``BrokerError`` for what will not. Batches hold 1 to ``limits.entries``
    entries and are answered entry by entry, in order.
    """

    #: Also what the log calls this broker; never with a secret in it.
    url: str
    limits: Limits

    @property
    def full_url(self) -> str:
        """The URL by which another process opens the same broker; it may hold a secret, so it is for no log."""
        return self.url

    @abstractmethod
    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Make the queues that are missing, dead-letter queues first; with ``create=False`` demand them all."""

    @abstractmethod
    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages, in order; an OK entry survives a crash of this process."""

    @abstractmethod
    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take up to ``count`` messages for ``lease`` seconds, waiting up to ``wait`` seconds for the first one.

        ``attempt`` is an id of up to 128 characters: a receive repeated with it after a lost answer gives the
        same messages again, where the broker can do that.
        """

    @abstractmethod
    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Delete delivered messages for good."""

    @abstractmethod
    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Set the seconds, counted from now, that deliveries stay invisible; 0 gives one back at once."""

    @abstractmethod
    def depth(self, queue: str) -> Depth:
        """Count a queue's messages."""

    @abstractmethod
    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that this queue takes."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """List the queues whose names begin with ``prefix``."""

    @abstractmethod
    def queue_url(self, queue: str) -> str:
        """Return the address of a queue."""

    @abstractmethod
    def tags(self, queue: str) -> dict[str, str]:
        """Return a queue's tags."""

    @abstractmethod
    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a queue, in place of those with the same names; None removes one. The others stay."""

    @abstractmethod
    def purge(self, queue: str) -> None:
        """Delete every message of a queue; its tags stay."""

    @abstractmethod
    def delete(self, queue: str) -> None:
        """Delete a queue with all it holds; one that is not there is no error."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the receives that are open now; what they took already, they still return."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and files. Closing twice is no error."""
