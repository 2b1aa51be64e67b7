"""Forks: a child must carry neither the parent's connection nor its locks."""

from __future__ import annotations

import os
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
    """Hold ``forked`` still while this process forks, and renew it in the child.

    The child cannot be left to find out at its first use: until then it would hold the parent's file locks
    open, for ever if the parent is killed.
    """
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(forked)
    held: list[Forked] = []

    def before() -> None:
        target = reference()
        if target is not None and target.hold():
            held.append(target)

    def after_in_parent() -> None:
        if held:
            held.pop().resume()

    def after_in_child() -> None:
        if held:
            held.pop().renew()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
