"""Watching: what waits, what is under way, what died."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqspipes import names
from sqspipes.brokers.base import Broker
from sqspipes.errors import CredentialsError, QueueMissingError
from sqspipes.runner.run import Run
from sqspipes.task import Task


@dataclass(frozen=True, slots=True)
class LevelStatus:
    """One level of one task.

    ``waiting`` and ``in_flight`` count messages, ``dead`` the task's dead letters (the same for all its levels).
    ``approximate``: the broker estimates its counts. ``last_poll`` is the seconds since this process last asked
    the queue for messages, ``oldest_call`` the seconds that the task's oldest call has been running here; None if
    there is none.
    """

    task: str
    priority: int
    waiting: int
    in_flight: int
    dead: int
    approximate: bool
    last_poll: float | None
    oldest_call: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """A client's queues.

    ``strays`` are this domain's queues that hold messages but belong to no registered task, with their counts;
    empty where the broker does not let this client list. ``outage`` is what the broker said last, while a run
    here waits for it to answer.
    """

    levels: tuple[LevelStatus, ...]
    strays: dict[str, int]
    outage: str | None


def look(broker: Broker, domain: str, tasks: Sequence[Task], runs: Sequence[Run]) -> Status:
    """Return the status of some tasks."""
    levels: list[LevelStatus] = []
    for task in tasks:
        dead = _messages(broker, task.dead_queue) if task.queues else 0
        ages = [age for run in runs if (age := run.oldest_call(task.name)) is not None]
        for priority, queue in enumerate(task.queues):
            depth = broker.depth(queue)
            polls = [at for run in runs if (at := run.last_poll(queue)) is not None]
            levels.append(
                LevelStatus(
                    task=task.name,
                    priority=priority,
                    waiting=depth.waiting,
                    in_flight=depth.in_flight,
                    dead=dead,
                    approximate=not broker.limits.exact,
                    last_poll=time.monotonic() - max(polls) if polls else None,
                    oldest_call=max(ages, default=None),
                )
            )
    outages = [error for run in runs if (error := run.outage) is not None]
    return Status(tuple(levels), _strays(broker, domain, tasks), outages[0] if outages else None)


def _strays(broker: Broker, domain: str, tasks: Sequence[Task]) -> dict[str, int]:
    known = {queue for task in tasks for queue in (*task.queues, task.dead_queue)}
    try:
        found = broker.names(f"{domain}--")
    except CredentialsError:
        return {}
    ours = [
        name
        for name in found
        if name not in known and (parsed := names.parse(name)) and parsed.domain == domain
    ]
    counts = {name: _messages(broker, name) for name in ours}
    return {name: count for name, count in counts.items() if count}


def _messages(broker: Broker, queue: str) -> int:
    try:
        depth = broker.depth(queue)
    except QueueMissingError:
        return 0
    return depth.waiting + depth.in_flight
