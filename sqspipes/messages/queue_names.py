"""Queue names: a function of domain, task and level, and back.

``domain--task.fifo`` is level 0, ``domain--task--p3.fifo`` level 3, ``domain--task--dead.fifo`` the dead
letters, ``domain--output--name.fifo`` an output and ``domain--output--name--dead.fifo`` what could not be read
of it. No part may contain ``--``, so nothing is ambiguous.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from sqspipes.defaults import LONGEST_QUEUE_NAME, MOST_PRIORITIES
from sqspipes.errors import OptionError

_PART = re.compile(r"[A-Za-z0-9_](?:-?[A-Za-z0-9_])*")
_RESERVED = ("output", "dead")
_LEVEL = re.compile(r"p([1-9][0-9]?)")
_SUFFIX = ".fifo"
#: What the longest kind of name adds to domain and task.
_LONGEST_ENDING = "--dead" + _SUFFIX


class QueueName(NamedTuple):
    """What a queue's name says: ``kind`` is ``"task"``, ``"dead"`` or ``"output"``, level counts for tasks.

    ``task`` is the name of the task or of the output; an output's dead letters are of the kind ``"dead"``, too.
    """

    domain: str
    task: str
    kind: str
    level: int = 0


def checked_part(option: str, value: Any) -> str:
    """Return the name of a domain, a task or an output."""
    if not isinstance(value, str) or not _PART.fullmatch(value) or value in _RESERVED:
        raise OptionError(
            f"{option} is {value!r}: allowed are letters, digits, '-' and '_', beginning and ending with "
            f"a letter, a digit or '_', without '--', and not 'output' or 'dead'"
        )
    return str.__str__(value)


def checked_length(option: str, domain: str, task: str) -> None:
    """Refuse a domain and a task that are too long for a queue name together."""
    length = len(f"{domain}--{task}{_LONGEST_ENDING}")
    if length > LONGEST_QUEUE_NAME:
        raise OptionError(
            f"{option} is {task!r}: with domain {domain!r} its dead-letter queue's name has {length} "
            f"characters, allowed are {LONGEST_QUEUE_NAME}"
        )


@lru_cache(maxsize=1_024)
def task_queue(domain: str, task: str, level: int) -> str:
    """Return the name of a task's queue of one level."""
    return f"{domain}--{task}--p{level}{_SUFFIX}" if level else f"{domain}--{task}{_SUFFIX}"


def dead_queue(domain: str, task: str) -> str:
    """Return the name of a task's dead-letter queue."""
    return f"{domain}--{task}--dead{_SUFFIX}"


def output_queue(domain: str, output: str) -> str:
    """Return the name of an output's queue."""
    return f"{domain}--output--{output}{_SUFFIX}"


def parse(name: str) -> QueueName | None:
    """Return what a queue's name says, or None if it is none of ours."""
    if not name.endswith(_SUFFIX) or len(name) > LONGEST_QUEUE_NAME:
        return None
    parts = name[: -len(_SUFFIX)].split("--")
    if len(parts) in (3, 4) and parts[1] == "output" and _is_part(parts[0]) and _is_part(parts[2]):
        if len(parts) == 3:
            return QueueName(parts[0], parts[2], "output")
        return QueueName(parts[0], parts[2], "dead") if parts[3] == "dead" else None
    if len(parts) not in (2, 3) or not _is_part(parts[0]) or not _is_part(parts[1]):
        return None
    if len(parts) == 2:
        return QueueName(parts[0], parts[1], "task")
    if parts[2] == "dead":
        return QueueName(parts[0], parts[1], "dead")
    level = _LEVEL.fullmatch(parts[2])
    if level is None or int(level[1]) >= MOST_PRIORITIES:
        return None
    return QueueName(parts[0], parts[1], "task", int(level[1]))


def _is_part(text: str) -> bool:
    return _PART.fullmatch(text) is not None and text not in _RESERVED
