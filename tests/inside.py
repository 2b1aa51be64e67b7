"""What tests see inside a run."""

from __future__ import annotations

from sqspipes import Run
from sqspipes.engine.lanes import Lanes


def lanes(run: Run, task: str) -> Lanes:
    """Return the lanes of a task."""
    return run._engine.parts.tasks[task].lanes


def leases(run: Run) -> int:
    """Count the messages that are held."""
    return len(run._engine.parts.leases)


def to_send(run: Run, queue: str) -> int:
    """Count what waits to be sent to a queue."""
    return run._engine.parts.settling._batchers["send", queue].items


def is_shut(run: Run) -> bool:
    """Say whether a suspect keeps others out."""
    return run._engine.parts.shared.gate.shut
