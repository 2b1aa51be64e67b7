"""Gate: a message that may kill its process runs alone in it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqspipes.runner.held import Held


class Gate:
    """Lets calls of one run begin: many innocent ones at once, or a single suspect.

    ``opened`` is called, without the lock, when a call that was refused may be let in now, and when a suspect left.
    """

    def __init__(self, opened: Callable[[], None]) -> None:
        self._opened = opened
        self._lock = threading.Lock()
        self._inside = 0
        self._alone: Held | None = None
        self._wanting: dict[int, Held] = {}
        self._refused = False

    @property
    def shut(self) -> bool:
        """Whether a suspect is inside or wants in: nobody else begins."""
        return self._alone is not None or bool(self._wanting)

    def enter(self, held: Held) -> bool:
        """Let a call begin, or say no: then ``opened`` tells when to ask again."""
        with self._lock:
            if held.suspect:
                allowed = self._inside == 0
                if allowed:
                    self._wanting.pop(id(held), None)
                    self._alone = held
                else:
                    self._wanting[id(held)] = held
            else:
                allowed = self._alone is None and not self._wanting
            self._inside += allowed
            self._refused |= not allowed
            return allowed

    def leave(self, *helds: Held) -> None:
        """Note that calls are over."""
        with self._lock:
            self._inside -= len(helds)
            opened = self._inside == 0 and (self._refused or self._alone is not None)
            if self._alone is not None:  # then there was no other
                self._alone = None
            if opened:
                self._refused = False
        if opened:
            self._opened()

    def forget(self, held: Held) -> None:
        """Note that a message that was refused is not held any more."""
        with self._lock:
            wanted = self._wanting.pop(id(held), None) is not None
            opened = wanted and (self._inside == 0 or not self._wanting)
        if opened:
            self._opened()
