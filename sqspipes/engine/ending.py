"""RunEnding: what the phases of a stop do with the parts of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from sqspipes.engine.parts import RunParts
from sqspipes.engine.settling import ACKS, CLEARS, EXTENDS, RELEASES, SENDS
from sqspipes.engine.stopping import HURRIED_SECONDS, Phase, Stopping, StopState
from sqspipes.support import clocks, lines

logger = lines.logger(__name__)

#: Seconds for which receives are left open once all is settled: answers with what was given back are then not on
#: their way when they are cut.
SETTLED_SECONDS = 0.25

#: Seconds between looks at open receives during a stop: one whose answer is overdue is not waited for.
LOOK_SECONDS = 1.0


class RunEnding:
    """Ends a run in good order. ``guarded`` does something for a part, whatever it raises."""

    def __init__(
        self, parts: RunParts, state: StopState, guarded: Callable[[str, Callable[[], object]], None]
    ) -> None:
        self._parts = parts
        self._state = state
        self._guarded = guarded
        self._deadline = 0.0

    def stopping(self, stop_timeout: float) -> Stopping:
        """Return the phases of a stop that begins now."""
        self._deadline = clocks.monotonic() + stop_timeout
        settling = self._parts.settling
        return Stopping(
            [
                Phase("calls", self.begin_no_more, self._calls_are_over, stop_timeout, 0.0, is_needed=False),
                Phase("sends", self.begin_to_settle, lambda: not settling.pending(SENDS)),
                Phase("acknowledgements", self._note_all_sent, lambda: not settling.pending(ACKS)),
                Phase("extensions", lambda: None, lambda: not settling.pending(EXTENDS)),
                Phase(
                    "messages given back",
                    settling.give_back_the_rest,
                    lambda: not settling.pending(CLEARS, RELEASES),
                ),
                Phase(
                    "the last answers",
                    lambda: None,
                    lambda: self._state.is_hurried or not self._is_to_be_cut or not self._parts.is_receiving,
                    SETTLED_SECONDS,
                    is_needed=False,
                ),
                Phase(
                    "receives",
                    lambda: None,
                    self._receives_are_over,
                    math.inf,
                    is_needed=False,
                    look_seconds=LOOK_SECONDS,
                ),
                Phase(
                    "messages that came late", lambda: None, lambda: not settling.pending(CLEARS, RELEASES)
                ),
            ],
            self._state,
        )

    def begin_no_more(self) -> None:
        """Receive and call nothing new, and give back what was not begun."""
        parts = self._parts
        stops = [] if parts.control is None else [parts.control.stop]
        stops += [source.stop for source in parts.sources]
        stops += [task.quiesce for task in parts.tasks.values()]
        stops += [] if parts.stream is None else [parts.stream.close]
        for stop in stops:
            self._guarded("stop", stop)
        if parts.limits.clean_interrupt:
            self._state.is_cut = True
            parts.cut_receives()

    def begin_to_settle(self) -> None:
        """Give up the calls that still run, and ask for all that waits."""
        for name, task in self._parts.tasks.items():
            for id in task.abandon():
                logger.warning("%s %s did not end in time: it comes back after its lease", name, id)
        self._parts.requests.hasten()
        self._parts.settling.hurry()

    def end_parts(self) -> None:
        """End what has threads of its own; after the last turn."""
        parts, is_hurried, now = self._parts, self._state.is_hurried, clocks.monotonic()
        parts.settling.close()
        until = max(now + HURRIED_SECONDS, 0.0 if is_hurried else self._deadline)
        for task in parts.tasks.values():
            task.join(until)
        parts.run_loop.leave(clocks.monotonic() if is_hurried else self._deadline)
        parts.run_loop.close(clocks.monotonic() + HURRIED_SECONDS)

    def _calls_are_over(self) -> bool:
        return not self._parts.has_calls

    def _note_all_sent(self) -> None:
        self._parts.shared.has_sent_all = True

    @property
    def _is_to_be_cut(self) -> bool:
        return self._state.is_cut and not self._parts.limits.clean_interrupt

    def _receives_are_over(self) -> bool:
        if self._state.is_cut:
            self._parts.cut_receives()
        return not self._parts.is_receiving
