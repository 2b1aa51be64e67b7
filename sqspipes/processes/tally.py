"""Tally: what several processes have done, task for task: those that live, and those that are gone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqspipes.summary import Counts, Summary

#: The counts of each task, as they travel.
Told = Mapping[str, Mapping[str, int]]


def counts_of(by_task: Mapping[str, Summary]) -> Told:
    """Return the counts of a run as they travel."""
    return {task: asdict(Counts.of(summary)) for task, summary in by_task.items()}


class Tally:
    """Sums what processes have told; what one has told is kept when it is gone."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._told: dict[int, dict[str, Counts]] = {}
        self._gone = {task: Counts() for task in tasks}

    def tell(self, process: int, told: Told) -> None:
        """Take the counts of a process since its start, in place of what it told before."""
        with self._lock:
            self._told[process] = {task: Counts.of(counts) for task, counts in told.items()}

    def bury(self, process: int) -> None:
        """Keep what a process has told last: one that is started in its place begins at nothing."""
        with self._lock:
            for task, counts in self._told.pop(process, {}).items():
                self._gone[task] += counts

    def by_task(self, reason: str) -> dict[str, Summary]:
        """Return the sums of each task, in the order of the pipe."""
        with self._lock:
            return {
                task: sum((told[task] for told in self._told.values() if task in told), gone).summary(reason)
                for task, gone in self._gone.items()
            }
