"""Summary: how a run ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended; the rest are counts.

    ``reason`` is ``"drained"``, ``"stopped"`` or ``"signal"``; ``"died"`` where a part or a process died and
    ``"raised"`` where an error of a task ended the run: ``Run.error`` has the error.

    ``done`` calls succeeded, ``failed`` attempts failed, ``dead`` messages became dead letters, in this run.
    """

    reason: str
    done: int
    failed: int
    dead: int
