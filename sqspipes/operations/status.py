"""Watching: what waits, what is under way, what died."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqspipes.brokers.base import Broker, Depth
from sqspipes.engine.run import Run
from sqspipes.errors import CredentialsError, QueueMissingError
from sqspipes.messages import control_word, queue_names
from sqspipes.operations.patience import patiently
from sqspipes.support import clocks
from sqspipes.support.workers import Workers
from sqspipes.tasks.task import Task

#: Queues that are counted at once: each takes a connection of its own, which SQS gives for some three round trips.
MOST_TOGETHER = 32


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
    here waits for it to answer. ``paused`` are the paused tasks, each with the time of the command; empty where the
    broker does not let this client read tags.
    """

    levels: tuple[LevelStatus, ...]
    strays: dict[str, int]
    outage: str | None
    paused: dict[str, str] = field(default_factory=dict)


def look(
    broker: Broker,
    tasks: Sequence[Task],
    runs: Sequence[Run],
    control_queue: str | None,
    there: Collection[str],
) -> Status:
    """Return the status of some tasks; ``there`` are the queues of their domain, as far as they may be listed."""
    known = [queue for task in tasks if task.queues for queue in (*task.queues, task.dead_queue)]
    strays = sorted(set(there).difference(known))
    counts = _counted(broker, [*known, *strays])
    levels = [level for task in tasks for level in _levels(broker, task, runs, counts)]
    outages = [error for run in runs if (error := run.outage) is not None]
    held = {name: count for name in strays if (count := _all(counts[name]))}
    return Status(tuple(levels), held, outages[0] if outages else None, _paused(broker, control_queue))


def listed(broker: Broker, domain: str) -> set[str] | None:
    """Return the queues of a domain that are there; None where the broker does not let this client list."""
    try:
        found = patiently(partial(broker.names, f"{domain}--"))
    except CredentialsError:
        return None
    return {name for name in found if (parsed := queue_names.parse(name)) and parsed.domain == domain}


def _counted(broker: Broker, queues: Sequence[str]) -> dict[str, Depth | QueueMissingError]:
    """Count the messages of queues, several at once where a request takes its time."""

    def count(queue: str) -> Depth | QueueMissingError:
        try:
            return patiently(partial(broker.depth, queue))
        except QueueMissingError as error:
            return error

    together = min(MOST_TOGETHER if broker.limits.requests_in_flight > 2 else 1, len(queues))
    if together < 2:
        return {queue: count(queue) for queue in queues}
    return dict(zip(queues, Workers(together, "sqspipes status").map(count, queues), strict=True))


def _levels(
    broker: Broker, task: Task, runs: Sequence[Run], counts: Mapping[str, Depth | QueueMissingError]
) -> Iterator[LevelStatus]:
    """Yield the status of each level of a task; a source has no queue, but calls."""
    ages = [age for run in runs if (age := run.oldest_call(task.name)) is not None]
    oldest, approximate = max(ages, default=None), not broker.limits.exact
    if not task.queues:
        yield LevelStatus(task.name, 0, 0, 0, 0, False, None, oldest)
        return
    dead = _all(counts[task.dead_queue])
    for priority, queue in enumerate(task.queues):
        depth = counts[queue]
        if isinstance(depth, QueueMissingError):
            raise depth
        polls = [at for run in runs if (at := run.last_poll(queue)) is not None]
        last_poll = clocks.monotonic() - max(polls) if polls else None
        yield LevelStatus(
            task.name, priority, depth.waiting, depth.in_flight, dead, approximate, last_poll, oldest
        )


def _paused(broker: Broker, control_queue: str | None) -> dict[str, str]:
    if control_queue is None:
        return {}
    try:
        return dict(control_word.read(patiently(partial(broker.tags, control_queue))).paused)
    except CredentialsError:
        return {}


def _all(depth: Depth | QueueMissingError) -> int:
    return 0 if isinstance(depth, QueueMissingError) else depth.waiting + depth.in_flight
