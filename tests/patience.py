"""Patience: checks of how soon something happens, that a busy machine cannot break."""

from __future__ import annotations

from collections.abc import Callable

#: Tries of a check; what is too slow by itself is so each time.
TRIES = 5


def once_in_time(check: Callable[[], object]) -> None:
    """Run a check until it passes, a few times at most: what else the machine does can only make it slower."""
    for _ in range(TRIES - 1):
        try:
            check()
        except AssertionError:
            continue
        return
    check()
