"""EmitRoom: bounds what calls emit in the middle, before they have ended."""

from __future__ import annotations

import threading

from sqspipes.calls.outcome import Abandoned
from sqspipes.defaults import MOST_WAITING_BYTES, MOST_WAITING_ITEMS


class EmitRoom:
    """Lets calls that emit in the middle wait while one queue is behind: what is under way there is bounded."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items = 0
        self._bytes = 0
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether the next output has to wait."""
        return self._items >= MOST_WAITING_ITEMS or self._bytes >= MOST_WAITING_BYTES

    def take(self, size: int) -> None:
        """Wait for room for one more output; raises ``Abandoned`` after the ``close``."""
        with self._changed:
            while self.is_full and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise Abandoned
            self._items += 1
            self._bytes += size

    def free(self, size: int) -> None:
        """Give the room of one output back."""
        with self._changed:
            self._items -= 1
            self._bytes -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
