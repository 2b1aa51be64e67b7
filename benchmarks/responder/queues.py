"""Queue: messages in groups. A group with anything in flight gives nothing more, and what comes back is in order."""

from __future__ import annotations

import heapq
import itertools
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

#: Seconds for which a deduplication id is known.
REMEMBERED = 300.0


class Message:
    """A body with its group, and how often it was received."""

    __slots__ = ("group", "id", "number", "received", "text", "until")

    def __init__(self, number: int, text: str, group: Group) -> None:
        self.id = str(uuid.UUID(int=number))
        self.number = number
        self.group = group
        self.text = text
        self.received = 0
        self.until = 0.0

    @property
    def handle(self) -> str:
        """The receipt handle of the newest receive."""
        return f"{self.number}.{self.received}"

    def answer(self) -> str:
        """Return the message as JSON."""
        return f'{{"MessageId":"{self.id}","ReceiptHandle":"{self.handle}",' + self.text % self.received


class Group:
    """Messages in order; ``flying`` are under way, ``listed`` says that the queue may hand some out."""

    __slots__ = ("flying", "listed", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: deque[Message] = deque()
        self.flying = 0
        self.listed = False


class Queue:
    """A FIFO queue; one whose name does not end in .fifo puts each message in a group of its own."""

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        self.name = name
        self.attributes = dict(attributes)
        self.lease = float(attributes.get("VisibilityTimeout", 30))
        self._fifo = name.endswith(".fifo")
        self._numbers = itertools.count(1)
        self._groups: dict[str, Group] = {}
        self._waiting = 0
        self._ready: deque[Group] = deque()
        self._flying: dict[str, Message] = {}
        self._ends: list[tuple[float, str]] = []
        self._seen: dict[tuple[str, str], tuple[float, str]] = {}

    @property
    def ready(self) -> bool:
        """Whether a receive would get something."""
        return bool(self._ready)

    def depth(self) -> tuple[int, int]:
        """Return how many messages wait, and how many are in flight."""
        return self._waiting, len(self._flying)

    def send(self, entry: Mapping[str, Any], now: float) -> str:
        """Store a message, unless its deduplication id is known; return its id."""
        number = next(self._numbers)
        name = str(entry["MessageGroupId"]) if self._fifo else str(number)
        known = str(entry.get("MessageDeduplicationId", number))
        while self._seen and (oldest := next(iter(self._seen.items())))[1][0] < now - REMEMBERED:
            del self._seen[oldest[0]]
        if (name, known) in self._seen:
            return self._seen[name, known][1]
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name)
        message = Message(number, _text(entry, name, known, number, now), group)
        self._seen[name, known] = now, message.id
        group.waiting.append(message)
        self._waiting += 1
        self._offer(group)
        return message.id

    def receive(self, count: int, lease: float, now: float) -> list[Message]:
        """Take up to ``count`` messages: as many of one group as there are, then of the next."""
        got: list[Message] = []
        while self._ready and len(got) < count:
            group = self._ready.popleft()
            group.listed = False
            while group.waiting and len(got) < count:
                message = group.waiting.popleft()
                group.flying += 1
                message.received += 1
                self._flying[message.handle] = message
                self._hide(message, now + lease)
                got.append(message)
        self._waiting -= len(got)
        return got

    def delete(self, handle: str) -> bool:
        """Forget a message; False when the handle is not that of a message in flight."""
        message = self._flying.pop(handle, None)
        if message is None:
            return False
        self._landed(message.group)
        return True

    def change(self, handle: str, lease: float, now: float) -> bool:
        """Hide a message for ``lease`` seconds from now, 0 gives it back; False as for ``delete``."""
        message = self._flying.get(handle)
        if message is None:
            return False
        if lease > 0:
            self._hide(message, now + lease)
        else:
            self._give_back(message)
        return True

    def expire(self, now: float) -> None:
        """Give back what was hidden for long enough."""
        for message in self._ended(now):
            self._give_back(message)

    def purge(self) -> None:
        """Forget all messages."""
        self._groups.clear()
        self._ready.clear()
        self._flying.clear()
        self._ends.clear()
        self._waiting = 0

    def _hide(self, message: Message, until: float) -> None:
        message.until = until
        heapq.heappush(self._ends, (until, message.handle))

    def _ended(self, now: float) -> Iterator[Message]:
        while self._ends and self._ends[0][0] <= now:
            message = self._flying.get(heapq.heappop(self._ends)[1])
            if message is not None and message.until <= now:
                yield message

    def _give_back(self, message: Message) -> None:
        del self._flying[message.handle]
        self._waiting += 1
        group = message.group
        if group.waiting and group.waiting[0].number < message.number:
            group.waiting = deque(sorted((*group.waiting, message), key=lambda each: each.number))
        else:
            group.waiting.appendleft(message)
        self._landed(group)

    def _landed(self, group: Group) -> None:
        group.flying -= 1
        self._offer(group)
        if not group.waiting and not group.flying:
            self._groups.pop(group.name, None)

    def _offer(self, group: Group) -> None:
        if group.waiting and not group.flying and not group.listed:
            group.listed = True
            self._ready.append(group)


def _text(entry: Mapping[str, Any], group: str, known: str, number: int, now: float) -> str:
    """Return the JSON that every answer with this message ends in; the count of its receives is left open."""
    attributes = (
        f'"SentTimestamp":"{now * 1000:.0f}","SequenceNumber":"{number:020}","MessageGroupId":{quoted(group)},'
        f'"MessageDeduplicationId":{quoted(known)},"ApproximateReceiveCount":'
    )
    text = f'"Body":{quoted(entry["MessageBody"])},"Attributes":{{{attributes}'.replace("%", "%%")
    return text + '"%d"}}'
