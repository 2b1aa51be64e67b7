"""Outcomes: what follows from a call that has ended: acknowledgement, another attempt, a dead letter, or a stop."""

from __future__ import annotations

from collections.abc import Sequence

from sqspipes.brokers.base import Limits
from sqspipes.calls import error_text
from sqspipes.calls.entries import as_received, letter_entry
from sqspipes.calls.held import Held, Parcel
from sqspipes.calls.outcome import DONE, Call, EndedCall, Ending, Outcome
from sqspipes.defaults import MAX_RECEIVES
from sqspipes.engine.pace import MOST_BEHIND, MOST_PARKED
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.task_state import TaskState
from sqspipes.errors import DecodingError, TooLargeError
from sqspipes.events import Called, Died, Retried
from sqspipes.messages import message as messages
from sqspipes.messages.body import decode
from sqspipes.support import event_log, lines

logger = lines.logger(__name__)

#: A message that was received more often than this is not given back for its backoff. After ``MAX_RECEIVES`` receives
#: the broker moves a message to the dead letters: half of them are left for processes that end.
MOST_RECEIVES_TO_GIVE_BACK = MAX_RECEIVES // 2


class Outcomes:
    """Decides what becomes of the messages of one task.

    ``is_abandoned``: the run has given up the calls that still run, so calls that end are only counted.
    """

    def __init__(self, state: TaskState, shared: EngineShared, limits: Limits) -> None:
        self._state = state
        self._task = state.task
        self._lanes = state.lanes
        self._shared = shared
        self._settling = shared.settling
        self._limits = limits
        self._told: set[str] = set()
        self.is_abandoned = False

    def end(self, ended: Sequence[EndedCall]) -> None:
        """Count calls that have ended, send their last outputs, and decide what becomes of their messages."""
        finished: list[Held] = []
        results: list[Parcel] = []
        failed: list[tuple[Call, Sequence[Outcome]]] = []
        tells = self._shared.listeners.hears_calls
        for call, outcomes, seconds in ended:
            if outcomes[0] is DONE and len(outcomes) == 1:  # nearly always
                self._state.pace.called(seconds[0], ok=True)
                self._state.counts.done += 1
            else:
                for outcome, took in zip(outcomes, seconds, strict=True):
                    self._count(outcome, took)
            if self.is_abandoned:
                continue
            for held in call.messages:
                if held.result is not None:
                    results.append(held.result)
                    held.result = None
            if outcomes.count(DONE) == len(outcomes):
                finished += call.messages
                if tells:
                    self._tell_done(call, seconds)
            else:
                failed.append((call, outcomes))
        try:
            if results:
                self._settling.send(results)
            for call, outcomes in failed:
                self._end_all(list(zip(call.messages, outcomes, strict=True)))
        finally:  # An error in another call must not take back what is done.
            self.finish(finished)

    def _tell_done(self, call: Call, seconds: Sequence[float]) -> None:
        for held, took in zip(call.messages, seconds, strict=True):
            self._shared.listeners.tell(Called(*self._names(held), held.failures + 1, took))

    def _names(self, held: Held) -> tuple[str, str, str, str | None]:
        """Return the first four fields of each event of a message."""
        return self._task.domain, self._task.name, held.message.id, held.message.group

    def _count(self, outcome: Outcome, seconds: float) -> None:
        if outcome is DONE:
            self._state.pace.called(seconds, ok=True)
            self._state.counts.done += 1
        elif outcome.ending is not Ending.BEHIND:
            self._state.pace.called(seconds, ok=False)
            self._state.counts.failed += 1

    def _end_all(self, ended: Sequence[tuple[Held, Outcome]]) -> None:
        """Decide what becomes of the messages of one call.

        If a message will be called again, the messages behind it in its group stay in the lane and wait for it.
        """
        goes_on: list[tuple[Held, Outcome]] = []
        waited_for: set[tuple[str, str]] = set()
        for held, outcome in ended:
            lane = (held.delivery.queue, held.delivery.group)
            if lane in waited_for:
                _renew(held, failed=outcome.ending is not Ending.BEHIND)
                continue
            goes_on.append((held, outcome))
            if outcome.ending in (Ending.BEHIND, Ending.RETRY, Ending.RAISE):
                waited_for.add(lane)
        for held, outcome in goes_on:
            if outcome.ending is Ending.BEHIND:  # The message that it was behind is a dead letter now.
                _renew(held, failed=False)
                self._park(held, self._shared.leases.clock.now())
            else:
                self._end(held, outcome)

    def _end(self, held: Held, outcome: Outcome) -> None:
        if outcome.ending is Ending.DONE:
            self.finish([held])
        elif outcome.ending is Ending.DEAD and outcome.death is not None:
            self._bury(held, outcome.death, outcome.shown)
        else:
            _renew(held, failed=True)
            self._try_again(held, outcome)

    def _try_again(self, held: Held, outcome: Outcome) -> None:
        if outcome.ending is Ending.RAISE:
            self._end_run(held, outcome)
            return
        of = None if self._task.retries is None else self._task.retries + 1
        exception = outcome.shown if event_log.logs_calls() else outcome.error
        self._shared.listeners.tell(
            Retried(*self._names(held), held.failures, of, outcome.delay, outcome.said, exception)
        )
        self._park(held, self._shared.leases.clock.now() + outcome.delay)

    def _end_run(self, held: Held, outcome: Outcome) -> None:
        """Stop the run because of a task's error, and give the message back."""
        logger.error("%s %s failed, the run ends: %s", self._task.name, held.message.id, outcome.said)
        logger.debug("%s %s failed", self._task.name, held.message.id, exc_info=outcome.shown)
        self._shared.raised(outcome.error or RuntimeError("failed"))
        self._state.is_stopping = True
        self._park(held, self._shared.leases.clock.now())

    def _park(self, held: Held, due: float) -> None:
        """Park a message until ``due``, on the lease clock; give it back instead if its lease is lost, or at a stop.

        The messages behind it in its lane wait with it, or are given back with it.
        """
        self._lanes.park(held, due)
        if not self._shared.leases.alive(held):
            self.drop_lost(held)
        elif self._state.is_stopping:
            self.give_back(self._lanes.drop(held))
        else:
            self._keep_few_parked(held, due)
        self._shared.notify_at(due)

    def _keep_few_parked(self, held: Held, due: float) -> None:
        """Give a parked message back for its backoff if too many messages are parked, or wait behind others.

        Each time costs a receive, and after ``MAX_RECEIVES`` of them the broker moves a message to the dead letters.
        So a message stays parked if it, or one behind it, has had many receives.
        """
        now, behind = self._shared.leases.clock.now(), self._lanes.behind(held, MOST_BEHIND)
        many_behind = bool(behind) and self._lanes.waiting > MOST_BEHIND // 2
        if due <= now or not (many_behind or self._lanes.parked > MOST_PARKED):
            return
        self._tell_of_parked("more of them wait for it at the broker")
        if max(one.delivery.receives for one in (held, *behind)) > MOST_RECEIVES_TO_GIVE_BACK:
            if self._lanes.parked >= 2 * MOST_PARKED or self._lanes.waiting >= MOST_BEHIND:
                self._tell_of_parked("none is taken in until some were called")
            return
        left = self._limits.longest_lease - (now - held.received)
        for one in reversed(self._lanes.drop(held)):  # The messages behind it are given back before it.
            self._shared.attempts.remember(one)
            self._settling.give_back(one, max(0.0, min(due - now, left)) if one is held else 0.0)

    def _tell_of_parked(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s: %d messages that failed, and %d behind them, wait here for another attempt: %s",
                self._task.name, self._lanes.parked, self._lanes.waiting, what,
            )  # fmt: skip

    def finish(self, helds: Sequence[Held]) -> None:
        """Let lanes go on to their next messages, and acknowledge these messages when their outputs are safe."""
        for held in helds:
            self._lanes.finish(held)
        self._state.settling += len(helds)
        self._settling.finish(helds)

    # Dead letters

    def _bury(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        self._send_letter(held, death, error)
        self.finish([held])

    def bury_unreadable(self, held: Held) -> None:
        """Make a dead letter of a message whose body cannot be read."""
        # ``decode`` raises nothing for a body of our format with ``raw`` in place of ``value``: this error is for it.
        error = DecodingError("the body holds a raw text in place of a value")
        try:
            decode(held.delivery)
        except DecodingError as reason:
            error = reason
        self._bury(held, error_text.death(self._task, error, held.failures + 1), error)

    def _send_letter(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        self._shared.listeners.tell(
            Died(*self._names(held), death.attempts, death.error_type, death.error, error)
        )
        held.buried = True
        entry = letter_entry(self._task, held, death, self._shared.message_bytes(self._task.dead_queue))

        def arrived() -> None:
            self._state.counts.dead += 1  # Only now: the letter is stored.
            self._settling.safe([held])

        self._settling.send([Parcel(held, self._task.dead_queue, entry, arrived)])

    def refused(self, held: Held) -> None:
        """Make a dead letter of a message if the next queue will never take one of its outputs."""
        reason, held.refused = held.refused, None
        if held.buried:
            logger.error("%s %s: its dead letter was refused: %s", self._task.name, held.message.id, reason)
            self._settling.give_back(held, held.lease)
            return
        if self._shared.has_sent_all:  # The stop waits for no more sends, so not for a letter either.
            self._settling.give_back(held)
            return
        held.done = False
        death = error_text.death(
            self._task, TooLargeError(f"an output was refused: {reason}"), held.failures + 1
        )
        self._send_letter(held, death, None)
        self._settling.finish([held])

    def drop_lost(self, held: Held) -> None:
        """Give back a message whose lease is lost and that does not run, with the messages behind it in its lane."""
        self.give_back(self._lanes.drop(held))

    def give_back(self, helds: Sequence[Held]) -> None:
        """Give back messages that are no longer in a lane, at once."""
        for held in helds:
            self._settling.give_back(held)


def _renew(held: Held, *, failed: bool) -> None:
    """Make a message ready for another call: its value is read anew, as the call may have changed it."""
    held.failures += failed
    held.message, held.refused = as_received(held), None
    if held.handed_on is not None:
        held.handed_on.begin()
