"""A broker of 200 lines: queues as files of JSON in a folder. An example of how a broker is written, not a fast one.

``FolderBroker("folder:///var/lib/pipe")`` keeps one file for each queue. One lock for the whole folder makes each
request atomic. A file is written beside the old one and renamed, so a crash leaves the one or the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from sqspipes import BrokerClosedError, QueueMissingError
from sqspipes.brokers import OK, Answer, Broker, Delivery, Depth, Entry, Kind, Limits, QueueSpec
from sqspipes.brokers.rules import LEASE_LOST, check_count, check_seconds, refusal

#: Seconds for which a queue knows the id of a message, as SQS does.
KNOWN_SECONDS = 300.0

#: Seconds between two looks of a receive that waits.
LOOK_SECONDS = 0.02

Queue = dict[str, Any]


class FolderBroker(Broker):
    """Queues in the folder of a URL ``folder:///path``, for all processes of one machine."""

    limits = Limits()

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = Path(unquote(urlsplit(url).path))
        self._changed = threading.Condition()
        self._interrupts = 0
        self._is_closed = False

    # Queues

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        """Make the queues that are missing; with ``create=False`` demand them all."""
        with self._locked():
            for spec in specs:
                if self._path(spec.name).exists():
                    continue
                if not create:
                    raise QueueMissingError(spec.name)
                dead = {"dead_letters": spec.dead_letters, "max_receives": spec.max_receives}
                self._save(spec.name, {**dead, "tags": dict(spec.tags), "messages": [], "known": {}})

    def names(self, prefix: str) -> list[str]:
        """List the queues whose names begin with ``prefix``."""
        with self._locked():
            found = [unquote(path.stem) for path in self._folder.glob("*.json")]
        return sorted(name for name in found if name.startswith(prefix))

    def queue_url(self, queue: str) -> str:
        """Return the address of a queue."""
        self._read(queue)
        return f"{self.url}/{quote(queue)}"

    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that this queue takes."""
        self._read(queue)
        return self.limits.message_bytes

    def depth(self, queue: str) -> Depth:
        """Count a queue's messages."""
        now, messages = time.time(), self._read(queue)["messages"]
        in_flight = sum(message["until"] > now for message in messages)
        return Depth(len(messages) - in_flight, in_flight)

    def tags(self, queue: str) -> dict[str, str]:
        """Return a queue's tags."""
        return dict(self._read(queue)["tags"])

    def tag(self, queue: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a queue; None removes one."""
        with self._changing(queue) as found:
            merged = {**found["tags"], **tags}
            found["tags"] = {name: value for name, value in merged.items() if value is not None}

    def purge(self, queue: str) -> None:
        """Delete every message of a queue; its tags stay."""
        with self._changing(queue) as found:
            found["messages"] = []

    def delete(self, queue: str) -> None:
        """Delete a queue with all it holds; one that is not there is no error."""
        with self._locked():
            self._path(queue).unlink(missing_ok=True)

    # Messages

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        """Store messages, in order."""
        check_count("entries", len(entries), self.limits.entries)
        answers = [refusal(entry) or OK for entry in entries]
        with self._changing(queue) as found:
            now = time.time()
            found["known"] = {key: until for key, until in found["known"].items() if until > now}
            for entry, answer in zip(entries, answers, strict=True):
                key = json.dumps([entry.group, entry.id])
                if answer.kind is Kind.OK and key not in found["known"]:
                    found["known"][key] = now + KNOWN_SECONDS
                    found["messages"].append(_message(entry.body, entry.group, now))
        return answers

    def receive(self, queue: str, *, count: int, wait: float, lease: float, attempt: str) -> list[Delivery]:
        """Take up to ``count`` messages; no answer can get lost on its way, so ``attempt`` is not needed."""
        check_count("count", count, self.limits.entries)
        check_seconds("wait", wait, self.limits.longest_wait)
        check_seconds("lease", lease, self.limits.longest_lease)
        deadline, interrupts = time.monotonic() + wait, self._interrupts
        while True:
            taken = self._take(queue, count, lease)
            left = deadline - time.monotonic()
            if taken or left <= 0:
                return taken
            with self._changed:
                if self._changed.wait_for(lambda: self._interrupts > interrupts, min(left, LOOK_SECONDS)):
                    return []

    def _take(self, queue: str, count: int, lease: float) -> list[Delivery]:
        now, taken = time.time(), list[Delivery]()
        with self._changing(queue) as found:
            blocked = {message["group"] for message in found["messages"] if message["until"] > now}
            for message in list(found["messages"]):
                group = message["group"]
                if group in blocked or len(taken) == count:
                    blocked.add(group)  # the rest of the group waits for this one
                    continue
                if found["dead_letters"] is not None and message["receives"] >= found["max_receives"]:
                    found["messages"].remove(message)
                    with self._changing(found["dead_letters"], is_locked=True) as dead:
                        dead["messages"].append({**message, "receives": 0})
                    continue
                message.update(receipt=uuid.uuid4().hex, until=now + lease, receives=message["receives"] + 1)
                own = (message[key] for key in ("id", "receipt", "receives", "body", "group", "sent"))
                taken.append(Delivery(queue, *own))
        return taken

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Delete delivered messages for good."""
        check_count("receipts", len(receipts), self.limits.entries)
        with self._changing(queue) as found:
            held = _held(found)
            gone = [held.pop(receipt, None) for receipt in receipts]
            found["messages"] = [message for message in found["messages"] if message not in gone]
        return [LEASE_LOST if message is None else OK for message in gone]

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        """Set the seconds, counted from now, that deliveries stay invisible."""
        check_count("leases", len(leases), self.limits.entries)
        answers = []
        with self._changing(queue) as found:
            held, now = _held(found), time.time()
            for receipt, seconds in leases:
                check_seconds("lease", seconds, self.limits.longest_lease)
                message = held.get(receipt)
                if message is not None:
                    message["until"] = now + seconds
                answers.append(LEASE_LOST if message is None else OK)
        return answers

    def interrupt(self) -> None:
        """End the receives that are open now."""
        with self._changed:
            self._interrupts += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more requests."""
        self._is_closed = True
        self.interrupt()

    # Files

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._is_closed:
            raise BrokerClosedError("the broker is closed")
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _changing(self, queue: str, *, is_locked: bool = False) -> Iterator[Queue]:
        """Yield a queue, and save what was made of it."""
        with contextlib.nullcontext() if is_locked else self._locked():
            found = self._load(queue)
            yield found
            self._save(queue, found)

    def _read(self, queue: str) -> Queue:
        with self._locked():
            return self._load(queue)

    def _load(self, queue: str) -> Queue:
        try:
            found: Queue = json.loads(self._path(queue).read_text())
        except FileNotFoundError:
            raise QueueMissingError(queue) from None
        return found

    def _save(self, queue: str, found: Queue) -> None:
        path = self._path(queue)
        with open(path.with_suffix(".new"), "w") as file:
            json.dump(found, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)

    def _path(self, queue: str) -> Path:
        return self._folder / f"{quote(queue, safe='')}.json"


def _message(body: str, group: str, now: float) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex, "body": body, "group": group, "sent": now, "receives": 0, "receipt": "", "until": 0.0,
    }  # fmt: skip


def _held(found: Queue) -> dict[str, Any]:
    """Return the messages that are in flight, by their receipts."""
    now = time.time()
    return {message["receipt"]: message for message in found["messages"] if message["until"] > now}
