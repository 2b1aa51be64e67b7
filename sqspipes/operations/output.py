"""Outputs: the queue, or the list, that the last task's results wait in, for whoever reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqspipes.brokers.base import LIST, Broker, list_key
from sqspipes.defaults import LONGEST_NAME
from sqspipes.errors import DecodingError, NewerFormatError, OptionError
from sqspipes.messages import queue_names
from sqspipes.messages.body import decode
from sqspipes.operations.receiving import Look
from sqspipes.support import checks, clocks
from sqspipes.tasks.plan import Plan, RunPlan
from sqspipes.tasks.task import Task

#: The place of an output, behind all tasks.
AFTER_ALL = 1_000_000


def output_task(domain: str, output: Any, **inherited: Any) -> Task:
    """Return the task that stands for an output: results are put to it, and it is never run."""
    output = str.__str__(output) if isinstance(output, str) else output
    name = f"output--{output}"
    if "@" in str(output):
        _check_key(output)
        return ListOutput(domain, name, index=AFTER_ALL, method=None, **inherited)
    queue_names.checked_part("output", output)
    queue_names.checked_length("output", domain, name)
    return Task(domain, name, index=AFTER_ALL, method=None, **inherited)


@dataclass(frozen=True, slots=True)
class ListOutput(Task):
    """An output that is a plain list, ``rpush@key``: it is pushed to, and never made, read or emptied here."""

    def queue(self, level: int) -> str:
        """Return the name by which the broker knows the list."""
        return self.name.partition("--")[2]

    def _own_queues(self) -> tuple[str, ...]:
        """Return none: the list is not this client's."""
        return ()


def check_place(output: Task | None, broker: Broker) -> None:
    """Refuse a list where the broker has none."""
    if isinstance(output, ListOutput) and not broker.limits.lists:
        allowed = "the name of a queue; rpush@key, a plain list, needs a redis:// broker"
        raise checks.refuse("output", output.queue(0), f"on {broker.url} {allowed}")


def check_readable(output: Task) -> None:
    """Refuse to read a list: others read it, too, and nobody gives back what they took."""
    if isinstance(output, ListOutput):
        queue = output.queue(0)
        raise OptionError(
            f"output is {queue!r}, a plain Redis list: it is read by Redis's own commands, LPOP {list_key(queue)}"
        )


def _check_key(output: str) -> None:
    key = list_key(output)
    if not (key and len(key) <= LONGEST_NAME and key.isprintable()):
        allowed = f"a name, or {LIST}key, with a key of 1 to {LONGEST_NAME:,} printable characters"
        raise checks.refuse("output", output, allowed)


def reading(task: Task, stop_timeout: float) -> RunPlan:
    """Return the plan of a run whose results are what waits in an output."""
    plan = Plan(task, _itself, next=None, tasks={}, ignore_none=False, json_default=None)
    return RunPlan(
        plans=[plan],
        levels={task.name: [0]},
        priority=0,
        drain=None,
        iterate=task.name,
        stop_timeout=stop_timeout,
    )


def taken(broker: Broker, task: Task, seconds: float | None) -> tuple[Any] | None:
    """Take one result, acknowledged before it is returned, in a tuple; None when there is none in time."""
    longest = broker.limits.longest_wait
    deadline = math.inf if seconds is None else clocks.monotonic() + seconds
    look = Look(broker, task.queue(0), endless=True, most=1, lease=task.lease)
    while True:
        left = max(0.0, deadline - clocks.monotonic())
        for delivery in look.receive(min(longest, left)):
            try:
                value = decode(delivery).value
            except NewerFormatError:  # others may be able to read it, after its lease
                continue
            except DecodingError:
                value = delivery.body
            if look.delete([delivery]):
                return (value,)
        if clocks.monotonic() >= deadline:
            return None


def _itself(value: Any) -> Any:
    return value
