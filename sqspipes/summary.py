"""Counts: what a run has done so far; Summary: how it ended. A further counter is a field of both, here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


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


@dataclass(slots=True)
class Counts:
    """What tasks, runs or processes did; ``+`` merges two, and the text is what the log says at the end."""

    done: int = field(default=0, metadata={"one": "call done", "many": "calls done"})
    failed: int = field(default=0, metadata={"one": "failed", "many": "failed"})
    dead: int = field(default=0, metadata={"one": "dead letter", "many": "dead letters"})

    @classmethod
    def of(cls, told: Any) -> Counts:
        """Return the counts in what a process told, or in a summary."""
        has = told if isinstance(told, Mapping) else asdict(told)
        return cls(**{counter.name: has[counter.name] for counter in fields(cls)})

    def __add__(self, other: Counts) -> Counts:
        names = [counter.name for counter in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        counted = [(getattr(self, each.name), each.metadata) for each in fields(self)]
        return ", ".join(f"{count} {said['one' if count == 1 else 'many']}" for count, said in counted)

    def summary(self, reason: str) -> Summary:
        """Return the summary of a run that has done this."""
        return Summary(reason, **asdict(self))
