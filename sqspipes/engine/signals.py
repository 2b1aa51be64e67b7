"""Signals: SIGTERM and SIGINT stop the runs in good order that the main thread waits for or reads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol


class Stoppable(Protocol):
    """What signals stop: a run, in this process or in several."""

    @property
    def over(self) -> bool: ...

    def signal(self) -> None: ...

    def interrupt(self) -> None: ...


class Signals:
    """What came in while a run was watched, and what was done about signals before."""

    def __init__(self, run: Stoppable, numbers: Sequence[signal.Signals]) -> None:
        self._run = run
        self._received = 0
        self._restored = False
        self.interrupted = False
        self._before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, for all runs that are watched: nothing here takes a lock, the main thread may hold any."""
        living = [each for each in self._chain(number) if not each._run.over]
        for each in living:
            each._hear(number)
        if not living:
            self._pass_on(number)

    def restore(self) -> None:
        """Put the handlers back that were set before; one that was set since then stays, and passes this one over."""
        self._restored = True
        if threading.current_thread() is threading.main_thread():
            for number in self._before:
                on_top = signal.getsignal(number) is self
                if on_top:
                    signal.signal(number, self._outer(number))

    def _hear(self, number: int) -> None:
        self._received += 1
        self.interrupted |= number == signal.SIGINT
        if self._received == 1 and number == signal.SIGINT:
            self._run.interrupt()
        else:
            self._run.signal()

    def _outer(self, number: int) -> Any:
        """Return the handler that was set before; another run's may have been put back meanwhile."""
        handler = self._before[number]
        while isinstance(handler, Signals) and handler._restored:
            handler = handler._before[number]
        return handler

    def _chain(self, number: int) -> Iterator[Signals]:
        handler: Any = self
        while isinstance(handler, Signals):
            yield handler
            handler = handler._outer(number)

    def _pass_on(self, number: int) -> None:
        """Do what was done before: this handler outlived its run, as its results were dropped in another thread."""
        *_, last = self._chain(number)
        signal.signal(number, last._outer(number) or signal.SIG_DFL)
        signal.raise_signal(number)


def _undo() -> None:
    """In a forked child, do about signals what was done before the runs: they are the parent's."""
    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if isinstance(handler, Signals):
            *_, last = handler._chain(number)
            signal.signal(number, last._outer(number) or signal.SIG_DFL)


#: Signals that may have a handler of ours; where there is no SIGHUP, as on Windows, nobody sends one.
_HANDLED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))

_undone: list[Callable[[], None]] = [_undo]
_masks: dict[int, set[int | signal.Signals]] = {}


def undo_in_forks(undo: Callable[[], None]) -> None:
    """Have every forked child call something before a signal reaches it: handlers of ours are the parent's."""
    _undone.append(undo)


def _before_fork() -> None:
    # CPython forgets a signal that comes in the first moment of a child, if there is a handler for it.
    _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)


def _after_fork() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    try:
        for undo in _undone:
            undo()
    finally:
        _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


@contextmanager
def foreground(run: Stoppable) -> Iterator[None]:
    """Let SIGTERM and SIGINT stop a run in good order while the block waits for it.

    After SIGINT ``KeyboardInterrupt`` is raised at the end of the block. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = Signals(run, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signals.restore()
    if signals.interrupted:
        raise KeyboardInterrupt
