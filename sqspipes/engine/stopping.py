"""Stopping: the phases of a stop in good order, one list."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Seconds that settling gets at the end of a stop, whatever calls have left of ``stop_timeout``.
SETTLING_SECONDS = 5.0

#: Seconds that each phase of a stop gets at a second signal: to settle, to cut receives, to give back what they took.
HURRIED_SECONDS = 0.15


@dataclass(slots=True)
class StopState:
    """How a run is to stop.

    ``is_cut``: receives that are open are cut, not let end. ``is_hurried``: a second signal came, nothing is waited
    for.
    """

    is_cut: bool = False
    is_hurried: bool = False


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a stop.

    ``begin`` is called once. The phase is over when ``is_over`` says so, or after ``seconds``, by default
    ``SETTLING_SECONDS``; ``hurried_seconds`` counts from the second signal. ``is_needed``: a phase that ran out of
    time has left something undone.
    """

    name: str
    begin: Callable[[], object]
    is_over: Callable[[], bool]
    seconds: float | None = None
    hurried_seconds: float = HURRIED_SECONDS
    is_needed: bool = True
    look_seconds: float = math.inf  #: between looks at what tells nobody that it is over


class Stopping:
    """Goes through the phases; ``step`` is called after each turn of the engine."""

    def __init__(self, phases: Sequence[Phase], state: StopState) -> None:
        self._phases = list(phases)
        self._state = state
        self._deadline = math.inf
        self._was_hurried = False
        self._phase: Phase | None = None
        self.is_over = False
        self.left_undone: list[str] = []  #: the phases that ran out of time

    def step(self, now: float) -> float:
        """Go on to the next phase if this one is over; return the seconds until the next look.

        There is a turn between the begin of a phase and the look whether it is over: what other threads had told
        before is done by then.
        """
        phase = self._phase
        if phase is None:
            self._go_on(now)
            return 0.0
        if self._state.is_hurried and not self._was_hurried:
            self._was_hurried = True
            self._deadline = min(self._deadline, now + phase.hurried_seconds)
        try:
            is_over = phase.is_over()
        except BaseException:  # it never says so
            self._leave(phase, now)
            raise
        if not is_over and now < self._deadline:
            return min(self._deadline - now, phase.look_seconds)
        if is_over:
            self._go_on(now)
        else:
            self._leave(phase, now)
        return 0.0

    def _leave(self, phase: Phase, now: float) -> None:
        if phase.is_needed:
            self.left_undone.append(phase.name)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        if not self._phases:
            self._phase, self.is_over = None, True
            return
        phase = self._phase = self._phases.pop(0)
        seconds = SETTLING_SECONDS if phase.seconds is None else phase.seconds
        self._deadline = now + (phase.hurried_seconds if self._state.is_hurried else seconds)
        phase.begin()
