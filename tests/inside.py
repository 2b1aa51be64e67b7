"""What tests see inside a run, whichever of the two engines it has."""

from __future__ import annotations

from typing import Any

from sqspipes import Run
from sqspipes.runner.lanes import Lanes


def has_new_engine(run: Run) -> bool:
    """Say which engine a run has."""
    return hasattr(run, "_tasks")


def lanes(run: Run, task: str) -> Lanes:
    """Return the lanes of a task."""
    of_run: Any = run
    tasks = of_run._tasks if has_new_engine(run) else of_run._dispatchers
    found: Lanes = tasks[task].lanes
    return found


def leases(run: Run) -> int:
    """Count the messages that are held."""
    of_run: Any = run
    return len(of_run._shared.leases if has_new_engine(run) else of_run._settler._leases)


def to_send(run: Run, queue: str) -> int:
    """Count what waits to be sent to a queue."""
    of_run: Any = run
    if has_new_engine(run):
        return int(of_run._settling_part._batchers["send", queue].items)
    return int(of_run._settler._batchers["send", queue]._items)


def is_shut(run: Run, task: str) -> bool:
    """Say whether a suspect keeps others out."""
    of_run: Any = run
    return bool(of_run._shared.gate.shut if has_new_engine(run) else of_run._dispatchers[task].shut)
