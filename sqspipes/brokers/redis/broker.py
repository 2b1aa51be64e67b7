"""The Redis broker: queues in Redis or Valkey, for any number of machines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from redis import exceptions

from sqspipes.brokers.base import OK, Answer, Broker, Depth, Entry, Limits, QueueSpec, list_key
from sqspipes.brokers.redis.connections import Connections
from sqspipes.brokers.redis.errors import keys_gone, translated
from sqspipes.brokers.redis.scripts import Scripts
from sqspipes.brokers.redis.url import parse
from sqspipes.brokers.rules import LEASE_LOST, check_count, check_seconds, refusal
from sqspipes.errors import BrokerClosedError, BrokerError, QueueMissingError
from sqspipes.messages.message import Delivery
from sqspipes.support import clocks

T = TypeVar("T")


#: Seconds for which a receive waits without a look at the leases, as in the scripts. It is also how long a message
#: may wait for a receive when the one that was woken for it died at that moment.
_SLICE = 5.0


class RedisBroker(Broker):
    """Queues in Redis 6.2 or newer, or Valkey: ``redis://host:port/db``, or ``rediss://`` for TLS.

    Every key begins with ``?prefix=``, ``sqspipes`` unless given. It is one server, or a primary with replicas;
    Redis Cluster is not supported. An OK entry survives what the server's settings let it survive:
    ``appendonly yes`` with ``appendfsync always`` a power cut, with ``everysec`` all but the last second or two of
    one; ``maxmemory-policy noeviction`` keeps a full server from dropping messages.

    ``clock`` takes the place of the server's own. A request whose bodies have more than ``request_bytes`` in all
    raises a BrokerError and stores nothing.
    """

    limits = Limits(
        entries=32, exact=True, clean_interrupt=True, linger=0.0, requests_in_flight=2, lists=True
    )

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None) -> None:
        self._place = parse(url)
        self.url = self._place.url
        self._clock = clock
        self._scripts = Scripts()
        self._closed = False
        self._known: set[str] = set()
        self._connections = Connections(self._place)

    @property
    def full_url(self) -> str:
        """The URL with the password: for no log."""
        return self._place.full_url

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Make the queues that are missing; with ``create=False`` demand them all."""
        if not create:
            self._demand([spec.name for spec in specs])
        elif specs:
            self._run("declare", "", *_rows(specs))

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages, in order, or push bodies to a list; an OK entry survives a crash of this process."""
        check_count("entries", len(entries), self.limits.entries)
        answers = [refusal(entry) or OK for entry in entries]
        pairs = zip(entries, answers, strict=True)
        parcels = [entry for entry, answer in pairs if answer is OK]
        size = sum(entry.size for entry in parcels)
        if size > self.limits.request_bytes:
            raise BrokerError(f"the request has {size:,} bytes, allowed are {self.limits.request_bytes:,}")
        key = list_key(queue)
        if key is not None and parcels:
            self._run("push", key, *_parcels(parcels))
        elif parcels:
            self._run_on("send", queue, *_parcels(parcels))
        elif key is None:
            self._demand([queue])
        return answers

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take up to ``count`` messages for ``lease`` seconds, waiting up to ``wait`` seconds for the first.

        The same attempt again gives the same messages again, for a new lease, as long as none of them changed.
        """
        check_count("count", count, self.limits.entries)
        check_seconds("wait", wait, self.limits.longest_wait)
        check_seconds("lease", lease, self.limits.longest_lease)
        interrupts = self._here().interrupts
        deadline = clocks.monotonic() + wait
        while True:
            answer = self._run_on("receive", queue, count, int(lease * 1000), attempt)
            if isinstance(answer, list):
                if None in answer:
                    here = self._connections
                    raise keys_gone(self._place.address, here.evicts, f"a body in {queue}")
                return list(_deliveries(queue, answer))
            left = deadline - clocks.monotonic()
            if answer == 0:
                continue  # There was so much to tidy up that it left the rest to the next call.
            if left <= 0 or not self._listen(queue, min(left, _SLICE, _seconds(answer)), interrupts):
                return []

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Delete delivered messages for good."""
        check_count("receipts", len(receipts), self.limits.entries)
        return _answers(self._run_on("ack", queue, *receipts))

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Set the seconds, counted from now, that deliveries stay invisible; 0 gives one back at once."""
        check_count("leases", len(leases), self.limits.entries)
        given: list[str | int] = []
        for receipt, seconds in leases:
            check_seconds("lease", seconds, self.limits.longest_lease)
            given += (receipt, int(seconds * 1000))
        return _answers(self._run_on("extend", queue, *given))

    def depth(self, queue: str) -> Depth:
        """Count a queue's messages."""
        total, in_flight = self._run_on("depth", queue)
        return Depth(total - in_flight, in_flight)

    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that this queue takes."""
        if queue not in self._known and list_key(queue) is None:
            self._demand([queue])
            self._known.add(queue)
        return self.limits.message_bytes

    def names(self, prefix: str) -> list[str]:
        """List the queues whose names begin with ``prefix``."""
        found = self._translated(lambda here: here.request("HKEYS", self._queues))
        return sorted(name for name in map(bytes.decode, found) if name.startswith(prefix))

    def queue_url(self, queue: str) -> str:
        """Return the address of a queue."""
        self._demand([queue])
        return f"{self.url}#{queue}"

    def tags(self, queue: str) -> dict[str, str]:
        """Return a queue's tags."""
        return dict(json.loads(self._run_on("tag", queue, "{}")))

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a queue; None removes one."""
        given = {name: value for name, value in tags.items() if value is not None}
        self._run_on("tag", queue, json.dumps(given), *(name for name in tags if name not in given))

    def purge(self, queue: str) -> None:
        """Delete every message of a queue, at once for all."""
        self._run_on("purge", queue, os.urandom(8).hex())

    def delete(self, queue: str) -> None:
        """Delete a queue with all it holds; one that is not there is no error."""
        self._known.discard(queue)
        self._run("delete", queue)

    def interrupt(self) -> None:
        """End the receives that are open now; what they took already, they still return."""
        self._here().interrupt()

    def close(self) -> None:
        """Close the connections. Closing twice is no error."""
        self._closed = True
        self._here().close()

    # Inside

    @property
    def _queues(self) -> str:
        return f"{self._place.prefix}:queues"

    def _here(self) -> Connections:
        """Return this process's connections; those of the one that forked it are only closed here."""
        if self._connections.process != os.getpid():
            self._connections = Connections(self._place)
            if self._closed:
                self._connections.close()
        return self._connections

    def _listen(self, queue: str, seconds: float, interrupts: int) -> bool:
        bell = f"{self._place.prefix}:bell:{queue}"
        return self._translated(lambda here: here.listen(bell, seconds, interrupts))

    def _demand(self, queues: Sequence[str]) -> None:
        """Raise the error that names the first queue which is not there."""
        if queues:
            rows = self._translated(lambda here: here.request("HMGET", self._queues, *queues))
            for queue, row in zip(queues, rows, strict=True):
                if row is None:
                    raise self._missing(queue)

    def _run_on(self, script: str, queue: str, *arguments: Any) -> Any:
        """Run a script on a queue that has to be there."""
        answer = self._run(script, queue, *arguments)
        if answer is None:
            raise self._missing(queue)
        return answer

    def _run(self, script: str, queue: str, *arguments: Any) -> Any:
        now = "" if self._clock is None else int(self._clock() * 1000)
        return self._translated(lambda here: here.run(self._scripts[script], queue, now, *arguments))

    def _translated(self, use: Callable[[Connections], T]) -> T:
        """Return what ``use`` returns, or raise what the port promises."""
        try:
            return use(self._here())
        except BrokerClosedError:
            raise
        except (exceptions.RedisError, OSError) as error:
            here = self._connections
            raise translated(error, self._place.address, known=here.known, evicts=here.evicts) from error

    def _missing(self, queue: str) -> QueueMissingError:
        evicts = self._connections.evicts
        lost = f"it was not made, or the server dropped it: {evicts}" if evicts else ""
        return QueueMissingError(queue, lost) if lost else QueueMissingError(queue)


def _rows(specs: Sequence[QueueSpec]) -> Iterator[str | int]:
    for spec in specs:
        tags = json.dumps(dict(spec.tags), sort_keys=True) if spec.tags else ""
        yield from (spec.name, os.urandom(8).hex(), spec.max_receives, spec.dead_letters or "", tags)


def _parcels(entries: Iterable[Entry]) -> Iterator[str | bytes]:
    for entry in entries:
        text = f"{len(entry.group)}:{entry.group}{entry.id}".encode()
        yield from (entry.group, hashlib.blake2b(text, digest_size=16).digest(), entry.body)


def _deliveries(queue: str, answer: Sequence[bytes]) -> Iterator[Delivery]:
    """Read what the script that receives returns."""
    head, *messages = answer
    id, *numbers = head.decode().split(" ")
    for message, number, receives in zip(messages, numbers[::2], numbers[1::2], strict=True):
        sent, group, body = message.split(b" ", 2)
        yield Delivery(
            queue=queue,
            # A replica that takes over, or a server without its last keys, gives numbers again.
            id=f"{id}-{number}-{sent.decode()}",
            receipt=f"{id}-{number}-{receives}",
            receives=int(receives),
            body=body.decode(),
            group=group.decode(),
            sent=int(sent) / 1000,
        )


def _answers(answer: bytes) -> list[Answer]:
    return [OK if each == ord("1") else LEASE_LOST for each in answer]


def _seconds(due: int) -> float:
    """Return how long it is until a lease ends, of what the script that receives says."""
    return due / 1000 if due >= 0 else _SLICE
