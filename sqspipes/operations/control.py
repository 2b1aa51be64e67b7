"""Control: the word that running processes obey on every machine, in the tags of a pipe's first queue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from sqspipes.brokers.base import Broker
from sqspipes.errors import OptionError
from sqspipes.messages import control_word
from sqspipes.operations.patience import patiently
from sqspipes.tasks.pipe import Pipe, TaskName


def pause(broker: Broker, pipe: Pipe, tasks: Iterable[TaskName]) -> None:
    """Have tasks take nothing in until they are resumed; all of them if none is named."""
    _tell(broker, pipe, control_word.pausing(_named(pipe, tasks)))


def resume(broker: Broker, pipe: Pipe, tasks: Iterable[TaskName]) -> None:
    """Let paused tasks go on; all of them if none is named."""
    _tell(broker, pipe, control_word.resuming(_named(pipe, tasks)))


def stop_all(broker: Broker, pipe: Pipe) -> None:
    """Have every run that goes on now stop in good order."""
    _tell(broker, pipe, control_word.stopping())


def _named(pipe: Pipe, tasks: Iterable[TaskName]) -> list[str]:
    return [pipe.named(task).name for task in tasks] or [task.name for task in pipe.tasks]


def _tell(broker: Broker, pipe: Pipe, tags: Mapping[str, str | None]) -> None:
    """Change the control word. Its queue is not made for it: nobody could run without."""
    pipe.named(0)
    queue = pipe.control_queue
    if queue is None:
        raise OptionError("no task of this client has a queue, which would carry the control word")
    patiently(partial(broker.tag, queue, tags))
