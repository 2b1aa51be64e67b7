"""Tally: what several processes have done, task for task: those that live, and those that are gone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence

from sqspipes.runner.summary import Summary

#: The calls done, the attempts failed and the messages dead, of each task.
Counts = Mapping[str, Sequence[int]]


def counts_of(by_task: Mapping[str, Summary]) -> Counts:
    """Return the counts of a run as they travel."""
    return {task: (summary.done, summary.failed, summary.dead) for task, summary in by_task.items()}


class Tally:
    """Sums what processes have told; what one has told is kept when it is gone."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        self._lock = threading.Lock()
        self._told: dict[int, Counts] = {}
        self._gone: Counter[tuple[str, int]] = Counter()

    def tell(self, process: int, counts: Counts) -> None:
        """Take the counts of a process since its start, in place of what it told before."""
        with self._lock:
            self._told[process] = counts

    def bury(self, process: int) -> None:
        """Keep what a process has told last: one that is started in its place begins at nothing."""
        with self._lock:
            for task, counts in self._told.pop(process, {}).items():
                self._gone.update({(task, place): count for place, count in enumerate(counts)})

    def by_task(self, reason: str) -> dict[str, Summary]:
        """Return the sums of each task, in the order of the pipe."""
        with self._lock:
            return {
                task: Summary(reason, *(self._sum(task, place) for place in range(3))) for task in self._tasks
            }

    def _sum(self, task: str, place: int) -> int:
        living = sum(counts[task][place] for counts in self._told.values() if task in counts)
        return self._gone[task, place] + living
