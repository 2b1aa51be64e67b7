"""TaskRun: the hub of one task of a run. It applies what the stages return."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from sqspipes.brokers.base import Limits
from sqspipes.calls import error_text, perform
from sqspipes.calls.entries import as_received, letter_entry
from sqspipes.calls.held import MOST_INNOCENT_RECEIVES, Held, Origin, Parcel
from sqspipes.calls.outcome import DONE, Call, Ending, Outcome
from sqspipes.defaults import MAX_RECEIVES
from sqspipes.engine.admission import Admission, Received
from sqspipes.engine.call_threads import CallThreads
from sqspipes.engine.calling import CallSide, InlineCall
from sqspipes.engine.lanes import Lanes
from sqspipes.engine.overdue import BLOCKED_SECONDS, Overdue
from sqspipes.engine.pace import MOST_BEHIND, MOST_PARKED, Pace
from sqspipes.engine.policy import MOST_COUNTED, CallPolicy
from sqspipes.engine.settling import Settling
from sqspipes.engine.shared import EngineShared
from sqspipes.engine.stream import Stream
from sqspipes.engine.summary import Counts
from sqspipes.errors import DecodingError, NewerFormatError, TooLargeError
from sqspipes.messages import message as messages
from sqspipes.messages.body import decode, foreign
from sqspipes.messages.message import Delivery, Message
from sqspipes.support import clocks, lines
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.task import Task

if TYPE_CHECKING:
    from sqspipes.engine.async_calls import AsyncCalls

if TYPE_CHECKING:
    from sqspipes.engine.async_calls import AsyncCalls

logger = lines.logger(__name__)

#: Seconds for which a body of a newer format is given back the first time, doubling with each receive, so that
#: it outlasts a slow roll-out without reaching the broker's own limit of receives.
NEWER_FORMAT_SECONDS = 30.0

#: Receives of a message up to which it may be given back for its backoff: half of those after which the broker
#: buries it are left for processes that end.
MOST_RECEIVES_TO_GIVE_BACK = MAX_RECEIVES // 2

#: Lingers for which the acknowledgement of a message put without a group may wait for others: nobody waits for it.
#: One of a group waits a single linger, as the rest of the group is handed out after it.
LINGERS_OF_ACK = 4

#: Calls are given to threads ahead of the slots that are free: one for so many slots, and one.
SLOTS_PER_CALL_AHEAD = 4

#: Leading threads that call one task, beside as many threads of its own as it has workers: what a task keeps for each
#: thread that calls it, as a connection, stays bounded.
MOST_LEADERS_THAT_CALL = 2


class TaskRun:
    """One task in one run. All of it is called in the engine's turn, except for ``began`` and ``oldest_call``."""

    def __init__(
        self, plan: Plan, levels: Sequence[int], shared: EngineShared, limits: Limits, stream: Stream | None
    ) -> None:
        self.plan = plan
        self.task: Task = plan.task
        self.counts = Counts()
        self.lanes = Lanes(plan.task.priorities, strict=plan.task.strict)
        self._limits = limits
        self._shared = shared
        self._settling: Settling = shared.settling
        self._stream = stream
        appetite = plan.task.workers * (plan.task.batch or 1)
        self.pace = Pace(appetite, plan.task.rate)
        self._linger = limits.linger if plan.task.linger is None else plan.task.linger
        self.admission = Admission(
            plan.task,
            [] if plan.task.is_source else levels,
            self.lanes,
            self.pace,
            shared.requests,
            limits,
            shared.leases.clock,
            self._linger,
        )
        self.side = CallSide(
            plan,
            self,
            shared.loop.tell,
            shared.leases.clock,
            shared.message_bytes,
            self._linger,
            stream,
            shared.run_loop,
            shared.died,
            shared.about_to_wait,
        )
        self._may_wait = plan.task.rate is not None or plan.task.batch is not None
        self._callers = self._make_callers()
        self._slots = plan.task.workers
        self._policy = CallPolicy() if self._may_be_called_by_leader(stream) else None
        self._calls_here = 0  # of the calls, those of threads that lead, or led when these began
        self._contexts: dict[int, Context] = {}  # of the leading threads that have called this task
        self._ahead = self._calls_ahead()
        self._settling_free = limits.entries * limits.requests_in_flight
        self.is_dirty = True  #: there may be something to begin, or to receive
        self.is_stopping = False
        self._tell_paused: Callable[[], object] | None = None
        self._allowed_at: float | None = None  # when the rate, or a batch's wait, allows the next call
        self._running: dict[Held, float] = {}  # and when each call began: inf while it waits for a thread
        self._overdue = Overdue(plan.task.name, plan.task.lease)
        self.calls = 0  #: given to threads, and not ended
        self.settling = 0  #: messages whose calls are over and that are held still
        self._ended: list[tuple[Call, Sequence[Outcome], list[float]]] = []
        self._batch_since: float | None = None  # when a batch that is not full began to wait
        self._refused: Held | None = None  # the suspect that the gate refused
        self._told: set[str] = set()

    def _make_callers(self) -> CallThreads | AsyncCalls:
        task, step, shared = self.task, self.plan.step, self._shared
        if self.plan.kind.is_async:
            # With asyncio, which is slow to import.
            from sqspipes.engine.async_calls import AsyncCalls

            return AsyncCalls(
                task.domain, task.name, task.workers, self.side, shared.run_loop.get(), shared.died
            )
        leave = step.leave if step is not None else lambda: None
        return CallThreads(f"{task.domain} {task.name}", task.workers, self.side.run, shared.died, leave)

    def _may_be_called_by_leader(self, stream: Stream | None) -> bool:
        """Say whether short calls may be made by the thread that leads.

        Not where a task is to be called by one thread for the whole run, as one with a single worker or a step; nor
        where a call produces in the middle or waits for a reader.
        """
        kind, task = self.plan.kind, self.task
        if kind.is_async or kind.yields or self.plan.step is not None:
            return False
        return task.workers > 1 and stream is None and not task.is_source

    def _calls_ahead(self) -> int:
        """Return how many calls may wait for a thread.

        None where it matters when a call begins: a rate, levels, a message that has the loop of its own.
        """
        if self.plan.kind.is_async or self._may_wait or self.task.priorities > 1:
            return 0
        return self.task.workers // SLOTS_PER_CALL_AHEAD + 1

    # A turn

    def take_in(self) -> None:
        """Take in what was received since the last turn."""
        for answer in self.admission.take_answers():
            received, _ = answer
            is_suspicious = any(map(self._is_suspicious, received.deliveries))
            is_grouped = bool(received.deliveries) and self._admit(received)
            self.admission.learn(answer, is_suspicious=is_suspicious, is_grouped=is_grouped)
            self._set_floor()
            self.is_dirty = True

    def go_on(self) -> None:
        """End the calls that have ended, begin what may begin, and receive what there is room for."""
        self._settle_calls()
        if self._tell_paused is not None and not (self._limits.clean_interrupt and self.admission.has_polls):
            self._tell_paused()
            self._tell_paused = None
        if not (self.is_dirty or self.admission.is_pause_over):
            return
        self.is_dirty = False
        self._begin_calls()
        unsettled = max(0, self.settling - self._settling_free)
        self.admission.invite(unsettled, is_shut=self._shared.gate.shut or self._begins_suspect)
        self._set_floor()

    @property
    def _begins_suspect(self) -> bool:
        """Whether the next call is one that may kill this process: it will shut the gate."""
        if not any(self.admission.suspects.values()):
            return False
        held = self.lanes.peek()
        return held is not None and held.suspect

    def wake(self, now: float) -> float | None:
        """Look at what is due at a time of the lease clock; return when more is due."""
        if self.lanes.wake(now):
            self.is_dirty = True
        if self._allowed_at is not None and self._allowed_at <= now:
            self._allowed_at = None
            self.is_dirty = True
        dues = [due for due in (self.lanes.next_wake(), self._allowed_at) if due is not None]
        return min(dues, default=None)

    def watch(self) -> float | None:
        """Warn of calls that run for long; return the seconds until there may be another one to warn of."""
        now = clocks.monotonic()
        running = {held: began for held, began in self._running.items() if began < now}
        overdue = self._overdue.look(running, now)
        blocked = self._callers.watch(now) if running else None
        # A call that begins later is looked at in time, too.
        seconds = [self._overdue.first if overdue is None else overdue]
        return min(seconds if blocked is None else [*seconds, blocked])

    def _set_floor(self) -> None:
        if self.task.strict and self.lanes.set_floor(self.admission.floor):
            self.is_dirty = True

    # What was received

    def _admit(self, received: Received) -> bool:
        """Take in what a receive gave. A redelivered message is never called twice.

        Returns whether some of it was put with a group.
        """
        shared, level, lease = self._shared, received.level, self.task.lease
        leases = shared.leases
        new: list[Held] = []
        is_suspicious = is_grouped = False
        blocked: set[str] = set()  # groups whose first message was given back: the rest would overtake it
        for delivery in received.deliveries:
            if delivery.group in blocked:
                self._settling.give_back_delivery(delivery)
            elif leases.renew(delivery, received.received, lease):
                continue
            elif leases.was_handed_on(delivery):
                self._settling.acknowledge_delivery(delivery)
            elif (message := self._read(delivery, level.number)) is None:
                blocked.add(delivery.group)
            else:
                linger = self._linger if message.group is not None else LINGERS_OF_ACK * self._linger
                attempt = shared.attempts.recall(delivery)
                held = Held(delivery, message, level.number, lease, received.received, linger, *attempt)
                is_suspicious |= held.suspect
                is_grouped |= message.group is not None
                new.append(held)
        if not shared.heard.is_set():
            shared.heard.set()
        if is_suspicious and len(new) > 1:
            # It comes again alone: of the receives that bury a killer, only some are its company's too.
            for held in new:
                shared.attempts.remember(held)
                self._settling.give_back_delivery(held.delivery)
            return False
        leases.hold(new)
        for held in new:
            if held.suspect:
                self._count_suspect(held, 1)
            if self.is_stopping:
                self._settling.give_back(held)
            else:
                self.lanes.add(held)
        return is_grouped

    def _read(self, delivery: Delivery, level: int) -> Message | None:
        """Return a delivery's message; one that cannot be read goes through its lane to the dead letters."""
        try:
            return decode(delivery, level)
        except NewerFormatError as error:
            backoff = ExponentialBackoff(NEWER_FORMAT_SECONDS, self._limits.longest_lease)
            delay = backoff.seconds(delivery.receives)
            logger.warning(
                "%s: message %s given back for %.0f s: %s", self.task.name, delivery.id, delay, error
            )
            self._settling.give_back_delivery(delivery, delay)
            return None
        except DecodingError:
            return foreign(delivery, raw=delivery.body, level=level)

    def _is_suspicious(self, delivery: Delivery) -> bool:
        """Say whether a message was received so often, by others or before, that it may kill its process."""
        if delivery.receives <= MOST_INNOCENT_RECEIVES:
            return False
        return delivery.receives - self._shared.attempts.of(delivery).given_back > MOST_INNOCENT_RECEIVES

    def _count_suspect(self, held: Held, step: int) -> None:
        suspects, queue = self.admission.suspects, held.delivery.queue
        suspects[queue] = suspects.get(queue, 0) + step

    # Calls to begin

    def _begin_calls(self) -> None:
        """Give as many calls to threads as there are slots and ready lanes, unless the leader makes them."""
        if self.is_called_here(clocks.monotonic()):
            return
        begun: list[Call] = []
        now = self._shared.leases.clock.now()
        # Beside calls of leading threads none may wait for a thread: it would begin while all slots are taken.
        most = self._slots + (0 if self._calls_here else self._ahead)
        while self.calls < most and (call := self._next_call(now)) is not None:
            begun.append(call)
        if not begun:
            return
        self._callers.give(begun)
        if self.plan.kind.is_async:
            self._shared.notify_at(now + BLOCKED_SECONDS)

    def _next_call(self, now: float) -> Call | None:
        """Return the next call, which counts as begun; ``now`` is the lease clock's time."""
        while not self.is_stopping:
            # A suspect that the gate refused is asked for first: it keeps all others out meanwhile.
            held = (self._refused and self._refused_first()) or self.lanes.peek()
            if held is None:
                self._batch_since = None
                break
            if self._may_wait and (self._too_soon(now) or self._waits_for_more(now)):
                break
            if not self._shared.leases.alive(held, now):
                self._drop_lost(held)
            elif held.message.raw is not None:
                self.lanes.start(held)
                self._bury_unreadable(held)
            elif self._shared.gate.enter(held):
                self._refused = None
                self.lanes.start(held)
                self.lanes.begun(held)
                self.pace.begun(now)
                self.calls += 1
                return self._make_call(held, now)
            else:
                self._refused = held if held.suspect else None
                break
        return None

    # Calls by the leader

    def is_called_here(self, now: float) -> bool:
        """Say whether the next call is to be made by the calling thread, which leads."""
        if self._policy is None or self.is_stopping or not self._policy.is_short(now):
            return False
        return threading.get_ident() in self._contexts or len(self._contexts) < MOST_LEADERS_THAT_CALL

    def next_call_here(self) -> Call | None:
        """Return a call for the leader to make, or None."""
        if self.calls >= self._slots or not self.lanes.ready:
            return None
        return self._next_call(self._shared.leases.clock.now())

    def context_here(self) -> Context:
        """Return the context in which the calling thread calls this task."""
        thread = threading.get_ident()
        context = self._contexts.get(thread)
        if context is None:
            context = self._contexts[thread] = Context()
        return context

    @property
    def measures(self) -> bool:
        """Whether it matters what of a call is computed, and what waited."""
        return self._policy is not None and self._policy.measures

    def begin_here(self) -> None:
        """Note that the leader makes a call."""
        self._calls_here += 1

    def not_begun_here(self, call: Call) -> None:
        """Give back what the leader was to call and could not."""
        self._calls_here -= 1
        self.too_late(call)

    def ended_here(self, made: InlineCall) -> None:
        """Learn from a call that the leader has made, and note how it ended."""
        if self._policy is not None:
            self._policy.learn(made.waited, made.ended)
        self.ended_elsewhere(made)

    def ended_elsewhere(self, made: InlineCall) -> None:
        """Note how a call ended that had kept its leader; that was learnt when another thread began to lead."""
        self._calls_here -= 1
        if made.outcomes is None:
            self.abandoned(made.call)
        else:
            self.ended(made.call, made.outcomes)

    def kept_leader(self) -> None:
        """Learn that a call kept the leader for so long that another thread leads now."""
        if self._policy is not None:
            self._policy.learn(MOST_COUNTED, clocks.monotonic())
        self.is_dirty = True

    def _refused_first(self) -> Held | None:
        """Return the suspect that the gate refused, unless a higher level has to go before it."""
        held = self._refused
        if held is None or not self.task.strict:
            return held
        if held.level >= self.lanes.floor and not any(c.ready for c in self.lanes.of[held.level + 1 :]):
            return held
        self._shared.gate.forget(held)
        self._refused = None
        return None

    def _make_call(self, held: Held, now: float) -> Call:
        """Return the call of a message that has begun, with as many others as go with it."""
        together = [held]
        if self.task.batch is not None and not held.suspect:
            self._gather(together, self.task.batch, now)
        for one in together:
            self._running[one] = float("inf")
        return Call(tuple(together))

    def _gather(self, together: list[Held], most: int, now: float) -> None:
        """Add to a batch what is behind its one message, and other heads of lanes with what is behind them."""
        self._batch_since = None
        head: Held | None = together[0]
        while head is not None:
            for one in self.lanes.behind(head, most - len(together)):
                if not self._goes_along(one, now):
                    break
                self.lanes.follow(one)
                together.append(one)
            head = self.lanes.peek(beside=together[0]) if len(together) < most else None
            if head is None or not self._goes_along(head, now):
                break
            self.lanes.start(head)
            together.append(head)

    def _goes_along(self, held: Held, now: float) -> bool:
        """Let a message into a batch, if it is none that needs a look of its own."""
        is_plain = held.message.raw is None and not held.suspect and self._shared.leases.alive(held, now)
        return is_plain and self._shared.gate.enter(held)

    def _waits_for_more(self, now: float) -> bool:
        """Say whether a batch is to wait until it is full, and have it looked at again."""
        if self.task.batch is None:
            return False
        lanes = self.lanes
        there = lanes.startable + (lanes.waiting if not lanes.running and not lanes.parked else 0)
        if self._batch_since is None:
            self._batch_since = now
        due = self._batch_since + self.task.batch_wait
        if there >= self.task.batch or now >= due:
            return False
        self._allowed_at = due
        self._shared.notify_at(due)
        return True

    def _too_soon(self, now: float) -> bool:
        """Say whether the rate allows no call yet, and have it looked at again."""
        seconds = self.pace.seconds_to_call(now)
        if seconds:
            self._allowed_at = now + seconds
            self._shared.notify_at(self._allowed_at)
        return seconds > 0

    # Word from calls

    def began(self, call: Call, when: float) -> None:
        """Note when a call began; in its thread."""
        for held in call.messages:
            if held in self._running:
                self._running[held] = when

    def ended(self, call: Call, outcomes: Sequence[Outcome]) -> None:
        """Note how a call ended."""
        now = clocks.monotonic()
        self._ended.append((call, outcomes, [now - min(self._running[held], now) for held in call.messages]))

    def too_late(self, call: Call) -> None:
        """Give back what a thread was to call: it had waited until its lease was lost."""
        self._end_call(call)
        self._drop_unbegun(call)
        self.is_dirty = True

    def abandoned(self, call: Call) -> None:
        """Note that a call ended because its run had given it up."""
        self._end_call(call)
        self.is_dirty = True

    def emitted(self, parcel: Parcel) -> None:
        """Send an output of a call that goes on."""
        self._settling.send([parcel])

    def offer(self, origin: Origin, value: Any) -> None:
        """Pass a result on to whoever iterates over the results of the run."""
        assert self._stream is not None
        self._settling.expect(origin)
        self._stream.offer(origin, value)

    def flush(self, origin: Origin, tell: Callable[[bool], None]) -> None:
        """Have a call told when all is safe that it emitted so far."""
        self._settling.flush(origin, tell)

    # Calls that have ended

    def _end_call(self, call: Call) -> None:
        self.calls -= 1
        for held in call.messages:
            self._running.pop(held, None)
        self._shared.gate.leave(*call.messages)

    def _settle_calls(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        self.is_dirty = True
        finished: list[Held] = []
        for call, outcomes, seconds in ended:
            self._end_call(call)
            for outcome, took in zip(outcomes, seconds, strict=True):
                self._count(outcome, took)
            if self.side.is_abandoned:
                continue
            results = [held.result for held in call.messages if held.result is not None]
            if results:
                self._settling.send(results)
                for held in call.messages:
                    held.result = None
            if outcomes.count(DONE) == len(outcomes):
                finished += call.messages
                self._log_done(call, seconds)
            else:
                self._end_all(list(zip(call.messages, outcomes, strict=True)))
        self._finish(finished)

    def _log_done(self, call: Call, seconds: Sequence[float]) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            for held, took in zip(call.messages, seconds, strict=True):
                logger.debug("%s %s done in %.3f s", self.task.name, held.message.id, took)

    def _count(self, outcome: Outcome, seconds: float) -> None:
        is_done = outcome.ending is Ending.DONE
        if outcome.ending is not Ending.BEHIND:
            self.pace.called(seconds, ok=is_done)
            self.counts.done += is_done
            self.counts.failed += not is_done

    def _end_all(self, ended: Sequence[tuple[Held, Outcome]]) -> None:
        """End what was called together; what is behind one of its group that will be called again waits for it."""
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
            if outcome.ending is Ending.BEHIND:  # what it was behind is a dead letter
                _renew(held, failed=False)
                self._park(held, self._shared.leases.clock.now())
            else:
                self._end(held, outcome)

    def _end(self, held: Held, outcome: Outcome) -> None:
        if outcome.ending is Ending.DONE:
            self._finish([held])
        elif outcome.ending is Ending.DEAD and outcome.death is not None:
            self._bury(held, outcome.death, outcome.error)
        else:
            _renew(held, failed=True)
            self._try_again(held, outcome)

    def _try_again(self, held: Held, outcome: Outcome) -> None:
        error = outcome.error or RuntimeError("failed")
        if outcome.ending is Ending.RAISE:
            self._end_run(held, error)
            return
        retries = "no limit" if self.task.retries is None else self.task.retries + 1
        logger.warning(
            "%s %s failed, attempt %d of %s, again in %.1f s: %s",
            self.task.name, held.message.id, held.failures, retries, outcome.delay, error_text.describe(error),
        )  # fmt: skip
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s failed", self.task.name, held.message.id, exc_info=error_text.loggable(error))
        self._park(held, self._shared.leases.clock.now() + outcome.delay)

    def _end_run(self, held: Held, error: BaseException) -> None:
        """Stop the run by a task's error; the message goes back."""
        logger.error(
            "%s %s failed, the run ends: %s", self.task.name, held.message.id, error_text.describe(error)
        )
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s failed", self.task.name, held.message.id, exc_info=error_text.loggable(error))
        self._shared.raised(error)
        self.is_stopping = True
        self._park(held, self._shared.leases.clock.now())

    def _park(self, held: Held, due: float) -> None:
        """Keep a message, and what is behind it, for a call when it is due."""
        self.lanes.park(held, due)
        if not self._shared.leases.alive(held):
            self._drop_lost(held)
        elif self.is_stopping:
            self._give_back(self.lanes.drop(held))
        else:
            self._keep_few_parked(held, due)
        self._shared.notify_at(due)

    def _keep_few_parked(self, held: Held, due: float) -> None:
        """Have a parked message wait at the broker if too many do here.

        Each time that costs one of the receives after which the broker takes a message for one that kills its
        process, so it is not done too often.
        """
        now, behind = self._shared.leases.clock.now(), self.lanes.behind(held, MOST_BEHIND)
        many_behind = bool(behind) and self.lanes.waiting > MOST_BEHIND // 2
        if due <= now or not (many_behind or self.lanes.parked > MOST_PARKED):
            return
        self._tell_of_parked("more of them wait for it at the broker")
        if max(one.delivery.receives for one in (held, *behind)) > MOST_RECEIVES_TO_GIVE_BACK:
            if self.lanes.parked >= 2 * MOST_PARKED or self.lanes.waiting >= MOST_BEHIND:
                self._tell_of_parked("none is taken in until some were called")
            return
        left = self._limits.longest_lease - (now - held.received)
        for one in reversed(self.lanes.drop(held)):  # what waits behind it goes first
            self._shared.attempts.remember(one)
            self._settling.give_back(one, max(0.0, min(due - now, left)) if one is held else 0.0)

    def _tell_of_parked(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s: %d messages that failed, and %d behind them, wait here for another attempt: %s",
                self.task.name, self.lanes.parked, self.lanes.waiting, what,
            )  # fmt: skip

    def _finish(self, helds: Sequence[Held]) -> None:
        """Let lanes go on and have their messages acknowledged when the outputs are safe."""
        for held in helds:
            self.lanes.finish(held)
        self.settling += len(helds)
        self._settling.finish(helds)

    # Dead letters

    def _bury(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        self._send_letter(held, death, error)
        self._finish([held])

    def _bury_unreadable(self, held: Held) -> None:
        error = DecodingError("the body holds a raw text in place of a value")
        try:
            decode(held.delivery)
        except DecodingError as reason:
            error = reason
        self._bury(held, perform.death(self.task, error, held.failures + 1), error)

    def _send_letter(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        logger.error(
            "%s %s is a dead letter after %d attempts: %s: %s; see client.dead_letters(%r)",
            self.task.name, held.message.id, death.attempts, death.error_type, death.error, self.task.name,
            exc_info=error_text.loggable(error),
        )  # fmt: skip
        held.buried = True
        entry = letter_entry(self.task, held, death, self._shared.message_bytes(self.task.dead_queue))

        def arrived() -> None:
            self.counts.dead += 1
            self._settling.safe([held])

        self._settling.send([Parcel(held, self.task.dead_queue, entry, arrived)])

    # Effects of settling

    def settled(self, helds: Sequence[Held]) -> None:
        """Free the room of messages that are not held any more."""
        for held in helds:
            if held.done:
                self.settling -= 1
                self.admission.unblocked += held.message.group is not None
            if held.suspect:
                self._count_suspect(held, -1)
                if self._refused is held:
                    self._refused = None
                self._shared.gate.forget(held)
        self.is_dirty = True

    def lost(self, held: Held) -> None:
        """Note a lease that another process may have by now."""
        held.lost = True
        logger.warning("%s %s: its lease was lost", self.task.name, held.message.id)
        self._drop_lost(held)

    def refused(self, held: Held) -> None:
        """Bury a message one of whose outputs its queue will never take."""
        reason, held.refused = held.refused, None
        if held.buried:
            logger.error("%s %s: its dead letter was refused: %s", self.task.name, held.message.id, reason)
            self._settling.give_back(held, held.lease)
            return
        if self._shared.has_sent_all:  # a stop had no time for it any more
            self._settling.give_back(held)
            return
        held.done = False
        death = perform.death(self.task, TooLargeError(f"an output was refused: {reason}"), held.failures + 1)
        self._send_letter(held, death, None)
        self._settling.finish([held])

    def _drop_lost(self, held: Held) -> None:
        """Leave a lost message that does not run to the broker, with what waits behind it."""
        self._give_back(self.lanes.drop(held))

    def _give_back(self, helds: Sequence[Held]) -> None:
        for held in helds:
            self._settling.give_back(held)

    # Watching and stopping

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, running or settling here."""
        return self.lanes.empty and not self.calls and not self.settling

    def oldest_call(self) -> float | None:
        """Return the seconds that the oldest running call has been running; from any thread."""
        now = clocks.monotonic()
        ages = [now - began for began in list(self._running.values()) if began < now]
        return max(ages, default=None)

    def pause(self, is_paused: bool, tell: Callable[[], object]) -> None:
        """Receive nothing, or go on; ``tell`` is called once that is so.

        Polls that are open are cut where that leaves no trace; elsewhere what they still bring is taken in.
        """
        self.admission.is_paused = is_paused
        self._tell_paused = tell
        if is_paused and self._limits.clean_interrupt:
            self.admission.cut()
        self._set_floor()
        self.is_dirty = True

    def quiesce(self) -> None:
        """Begin no more calls, and give back what was not begun."""
        self.is_stopping = True
        self.admission.stop()
        for call in self._callers.take_back():
            self._end_call(call)
            self._drop_unbegun(call)
        self._callers.close()
        self._give_back(self.lanes.drop_idle())

    def _drop_unbegun(self, call: Call) -> None:
        """Give back the messages of a call that never began, with what is behind them."""
        now = self._shared.leases.clock.now()
        for held in call.messages:
            if held.lane is not None and held is held.lane.messages[0]:
                self.lanes.park(held, now)
                self._give_back(self.lanes.drop(held))

    def abandon(self) -> list[str]:
        """Leave the messages of calls that still run to come back; return their ids."""
        self.side.abandon()
        for held in self._running:
            self._shared.leases.drop(held)
        return [held.message.id for held in self._running]

    def join(self, deadline: float) -> None:
        """Wait for threads that are idle to end; after the end of the engine's turns."""
        self.side.close()
        self._callers.join(deadline)


def _renew(held: Held, *, failed: bool) -> None:
    """Make a message ready for another call."""
    held.failures += failed
    held.message, held.refused = as_received(held), None
    if held.handed_on is not None:
        held.handed_on.begin()
