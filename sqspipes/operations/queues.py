"""Queues: those of a client's tasks, made when they are first needed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqspipes.brokers.base import Broker, QueueSpec
from sqspipes.defaults import TIMEOUT
from sqspipes.errors import QueueMissingError
from sqspipes.operations.patience import patiently
from sqspipes.tasks.task import Task


@dataclass(frozen=True, slots=True)
class NewQueues:
    """How queues are made: whether any may be, and the attributes and tags of new ones."""

    create: bool
    high_throughput: bool
    attributes: Mapping[str, str]
    tags: Mapping[str, str]

    def specs(self, task: Task) -> list[QueueSpec]:
        """Return the queues of a task as they should be made; a source has none."""
        return [
            QueueSpec(
                name,
                lease=task.lease,
                dead_letters=None if name == task.dead_queue else task.dead_queue,
                high_throughput=self.high_throughput,
                attributes=self.attributes,
                tags=self.tags,
            )
            for name in task.every_queue
        ]


class Queues:
    """A client's queues on a broker, and what this process has seen of them.

    ``seen`` has the queues that are known to be there, each with the largest body, in bytes, that it takes.
    """

    def __init__(self, broker: Broker, new: NewQueues, seen: Mapping[str, int]) -> None:
        self._broker = broker
        self._new = new
        self._seen = dict(seen)
        self._pid = os.getpid()

    @property
    def sizes(self) -> dict[str, int]:
        """The largest body, in bytes, that each queue takes which was seen."""
        return dict(self._seen)

    def size(self, queue: str) -> int:
        """Return the largest body, in bytes, that a queue takes; asks nobody."""
        return self._seen.get(queue, self._broker.limits.message_bytes)

    def declare(self, tasks: Iterable[Task], seconds: float = TIMEOUT) -> None:
        """Make the queues of tasks that this process has not seen yet."""
        if self._pid != os.getpid():  # a child of a fork: what is in memory stayed with the parent
            self._pid, self._seen = os.getpid(), {}
        unseen = [task for task in tasks if not all(name in self._seen for name in task.every_queue)]
        specs = [spec for task in unseen for spec in self._new.specs(task) if spec.name not in self._seen]
        if specs:
            self._seen.update(patiently(partial(self._made, specs), seconds))

    def _made(self, specs: Sequence[QueueSpec]) -> dict[str, int]:
        """Make queues that are missing, and return the largest body, in bytes, that each one takes."""
        self._broker.declare(specs, create=self._new.create)
        return {spec.name: self._broker.message_bytes(spec.name) for spec in specs}

    def forget(self, names: Iterable[str]) -> None:
        """Look at queues again before they are used, as if they had not been seen."""
        for name in names:
            self._seen.pop(name, None)

    def purge(self, names: Iterable[str]) -> None:
        """Delete all messages of queues; one that is missing has none."""
        for name in names:
            with suppress(QueueMissingError):
                patiently(partial(self._broker.purge, name))

    def delete(self, names: Iterable[str]) -> None:
        """Delete queues with all they hold."""
        for name in names:
            patiently(partial(self._broker.delete, name))
            self.forget([name])
