"""Living: the runs of a client that somebody still has."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

Run = TypeVar("Run")


class Living(Generic[Run]):
    """A set that keeps nothing alive; it can be iterated over while another thread adds to it, without a lock."""

    def __init__(self) -> None:
        self._known: tuple[weakref.ref[Run], ...] = ()

    def add(self, run: Run) -> None:
        """Add a run; the caller sees to it that no two threads do so at once."""
        self._known = (*(ref for ref in self._known if ref() is not None), weakref.ref(run))

    def __iter__(self) -> Iterator[Run]:
        for ref in self._known:
            run = ref()
            if run is not None:
                yield run

    def __len__(self) -> int:
        return sum(1 for _ in self)
