"""The Broker port: FIFO queues of opaque text, with SQS's rules on every broker.

A broker knows no task and never parses a body. Every broker keeps these rules:

- Messages of one group are handed out in the order in which they were sent. While a message is in flight, no other
  receive gets a message of its group. The receive that took the message may bring more of the group along.
- A received message is invisible for its lease. If the lease ends, the message is handed out again, and its receive
  count is 1 higher.
- A message has the same id at each receive. No other message of the broker ever has this id: in no queue, not after a
  purge, and not in a new file or key space that takes the place of an old one. A message that was put back from a
  dead-letter queue is another message, with an id of its own.
- If a queue gets the same deduplication id in the same group again within 5 minutes, the second message is accepted
  and not stored. This also holds when the first message has already been deleted.
- A receipt settles its own delivery only. After the end of the lease, or after a newer receive, the answer is GONE.
- A message that was received more than ``max_receives`` times moves to the dead-letter queue, if the queue has one.
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

#: The prefix of a queue name that stands for a plain list: ``rpush@key`` is the list ``key`` of the broker's server.
#: Only a broker with ``Limits.lists`` has plain lists. A plain list can only be sent to: the broker pushes the bodies
#: to its end, unchanged.
LIST = "rpush@"


class Kind(enum.Enum):
    """What became of one entry of a batch."""

    OK = "ok"  #: done
    GONE = "gone"  #: not done: the lease is lost, and the receipt settles nothing any more
    AGAIN = "again"  #: not done; the same entry may be sent again
    NEVER = "never"  #: not done, and the same entry will never be done; the reason says why


@dataclass(frozen=True, slots=True)
class Answer:
    """The broker's answer to one entry of a batch. The answers have the order of the entries."""

    kind: Kind
    reason: str = ""


#: The answer to every entry that is done. It needs no reason, so one object serves for all of them.
OK = Answer(Kind.OK)


class Entry(NamedTuple):
    """One message to send: its body, its group and its deduplication id.

    Group and deduplication id use the characters that SQS allows. A body is ASCII, unless it is a foreign body that
    is sent as it was received.
    """

    body: str
    group: str
    id: str

    @property
    def size(self) -> int:
        """The size of the body in bytes, as ``Limits`` counts them."""
        return len(self.body) if self.body.isascii() else len(self.body.encode("utf-8", "surrogatepass"))


def list_key(queue: str) -> str | None:
    """Return the key of a plain list if a queue's name stands for a plain list, else None."""
    return queue[len(LIST) :] if queue.startswith(LIST) else None


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as it should be made.

    ``dead_letters`` is the name of the queue for messages that were received too often, or None. ``attributes`` are
    further attributes under the broker's own names. ``tags`` are the tags that the queue has from its beginning.
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

    - ``entries`` and ``request_bytes`` bound a request, ``message_bytes`` bounds a body.
    - ``longest_wait``, ``longest_lease``: in seconds.
    - ``exact``: depths are counted, not estimated.
    - ``clean_interrupt``: a receive that was interrupted has taken no message.
    - ``linger``: the default of the seconds that a message may wait at a hop for others to fill a request.
    - ``requests_in_flight``: how many requests of one kind to one queue are worth having under way at a time.
    - ``longest_answer``: the seconds within which every request has answered or failed. They include the wait of a
      poll and all timeouts. A request that takes longer is an outage, one that takes twice as long ends the run.
    - ``control_interval``: the default of the seconds between two looks of a run at its control word.
    - ``lists``: ``send`` also takes the name of a plain list.
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
    """How many messages a queue holds.

    ``waiting`` includes the messages that cannot be received yet because a message of their group is in flight.
    """

    waiting: int
    in_flight: int


class Broker(ABC):
    """Queues of text. All methods are thread-safe.

    Every method raises ``BrokerUnavailableError`` for a failure that may pass: the caller may try again. For any
    other failure it raises ``QueueMissingError``, ``CredentialsError`` or another ``BrokerError``. A batch holds 1 to
    ``limits.entries`` entries. Each entry has its own answer, and the answers have the order of the entries.
    """

    #: The URL without its secrets. The log names the broker by this URL.
    url: str
    limits: Limits

    @property
    def full_url(self) -> str:
        """The URL with which another process opens the same broker. It may hold a secret, so it is never logged."""
        return self.url

    @abstractmethod
    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Make the queues that are missing, dead-letter queues first.

        With ``create=False`` make none, and raise ``QueueMissingError`` if a queue is missing.
        """

    @abstractmethod
    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages, in order.

        An entry that was answered OK survives a crash of this process. Only a broker in the memory of the process
        cannot promise that.
        """

    @abstractmethod
    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take up to ``count`` messages for ``lease`` seconds; wait up to ``wait`` seconds for the first message.

        ``attempt`` is an id of up to 128 characters. When the answer to a receive is lost, the receive is repeated
        with the same id. A broker that can do so then gives the same messages again.
        """

    @abstractmethod
    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Delete delivered messages for good."""

    @abstractmethod
    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Set the seconds, counted from now, that deliveries stay invisible; 0 gives a message back at once."""

    @abstractmethod
    def depth(self, queue: str) -> Depth:
        """Count a queue's messages."""

    @abstractmethod
    def message_bytes(self, queue: str) -> int:
        """Return the size in bytes of the largest body that this queue takes."""

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
        """Set tags of a queue. A tag of the same name is replaced, the value None removes it, all other tags stay."""

    @abstractmethod
    def purge(self, queue: str) -> None:
        """Delete every message of a queue; the tags of the queue stay."""

    @abstractmethod
    def delete(self, queue: str) -> None:
        """Delete a queue with all its messages. To delete a queue that does not exist is no error."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the receives that are open now. They still return the messages that they have already taken."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and files. Closing twice is no error."""
