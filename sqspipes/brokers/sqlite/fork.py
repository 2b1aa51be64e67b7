"""Forks: a child must carry neither the parent's connection nor its locks."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """What can be held still while the process forks."""

    def hold(self) -> bool:
        """Before a fork: let nothing be under way, and say whether that succeeded."""

    def resume(self) -> None:
        """After a fork, in the parent: go on."""

    def renew(self) -> None:
        """After a fork, in the child: leave what is the parent's."""


def survive_forks(forked: Forked) -> None:
    """Hold ``forked`` still while this process forks, and renew it in the child, for as long as it lives.

    The child cannot be left to find out at its first use: until then it would hold the parent's file locks
    open, for ever if the parent is killed.
    """
    if hasattr(os, "register_at_fork"):
        _forks.add(forked)


class _Forks:
    """All that has to survive forks: Python keeps what is registered for ever, so that happens only once."""

    def __init__(self) -> None:
        # Reentrant: a signal's handler may fork.
        self._lock = threading.RLock()
        self._registered = False
        self._living: weakref.WeakSet[Forked] = weakref.WeakSet()
        self._held: list[list[Forked]] = []

    def add(self, forked: Forked) -> None:
        with self._lock:
            if not self._registered:
                self._registered = True
                os.register_at_fork(
                    before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
                )
            self._living.add(forked)

    def _before(self) -> None:
        self._lock.acquire()
        held: list[Forked] = []
        self._held.append(held)
        held += (each for each in list(self._living) if each.hold())

    def _in_parent(self) -> None:
        for each in self._held.pop():
            each.resume()
        self._lock.release()

    def _in_child(self) -> None:
        for each in self._held.pop():
            each.renew()
        self._lock.release()


_forks = _Forks()
