"""Signals: what ends a command, also when its terminal goes away."""

from __future__ import annotations

import signal
from types import FrameType

from sqspipes import undo_in_forks

#: Where there is none, as on Windows, nobody sends one.
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)


def listen() -> None:
    """Let SIGTERM end a command in good order, and SIGHUP do the same; one that is ignored stays so, as by nohup.

    A run has handlers of its own for SIGTERM and SIGINT as long as it goes on.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    if _HANGUP is not None and signal.getsignal(_HANGUP) is signal.SIG_DFL:
        signal.signal(_HANGUP, _hang_up)


def leave_to_parent() -> None:
    """Let a process of a run outlive a SIGHUP, which goes to all of a terminal: its parent tells it to stop."""
    if _HANGUP is not None and signal.getsignal(_HANGUP) is signal.SIG_DFL:
        signal.signal(_HANGUP, _ignore)  # not SIG_IGN: what tasks start would inherit that


def _undo() -> None:
    """In a process that a task forks, have these signals end it, as everywhere."""
    for number in (signal.SIGTERM, _HANGUP):
        if number is not None and signal.getsignal(number) in (_end, _hang_up, _ignore):
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    """End the command as if by itself: the terminal gets its cursor back."""
    raise SystemExit(128 + number)


def _hang_up(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGTERM) is _end:
        _end(number, frame)
    signal.raise_signal(signal.SIGTERM)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Go on."""


undo_in_forks(_undo)
