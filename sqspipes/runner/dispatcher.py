"""Dispatcher: one task of a run. Takes in what was received, has it called in lane order, settles what it became."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqspipes.defaults import MAX_RECEIVES
from sqspipes.errors import DecodingError, NewerFormatError, TooLargeError
from sqspipes.messages import message as messages
from sqspipes.messages.body import decode, foreign
from sqspipes.messages.message import Delivery, Message
from sqspipes.messages.values import check_nothing_lazy
from sqspipes.runner import calls, current
from sqspipes.runner.batch import perform_batch
from sqspipes.runner.entries import as_received, letter_entry, message_entry
from sqspipes.runner.executor import (
    DONE,
    Call,
    Emission,
    Ended,
    Ending,
    Executor,
    Outcome,
    ThreadExecutor,
)
from sqspipes.runner.held import MOST_INNOCENT_RECEIVES, Held, Origin, Parcel
from sqspipes.runner.lanes import Lanes
from sqspipes.runner.overdue import BLOCKED_SECONDS, Overdue
from sqspipes.runner.pace import MOST_BEHIND, MOST_PARKED, Pace
from sqspipes.runner.settler import Abandoned
from sqspipes.runner.shared import Shared
from sqspipes.runner.summary import Counts
from sqspipes.support import clocks, lines
from sqspipes.support.backoff import ExponentialBackoff
from sqspipes.support.forked import called
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.task import Task

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


class Dispatcher:
    """Everything about one task in one run. It is the engine that its executor talks to."""

    def __init__(self, plan: Plan, shared: Shared, *, streams: bool) -> None:
        self.task: Task = plan.task
        self.counts = Counts()
        self.lock = threading.RLock()
        self.unblocking = threading.Condition(self.lock)  #: groups may go on at the broker
        self.lanes = Lanes(plan.task.priorities, strict=plan.task.strict)
        limits = shared.broker.limits
        self.appetite = plan.task.workers * (plan.task.batch or 1)  #: messages that may run at once
        self.pace = Pace(self.appetite, plan.task.rate)
        self.linger = limits.linger if plan.task.linger is None else plan.task.linger
        self._settling_free = limits.entries * limits.requests_in_flight
        self.settling = 0
        self.unblocked = 0  #: messages put with a group that were acknowledged
        self.invite: Callable[[], None] | None = None  #: lets receivers begin; the lock is to be held
        self.stopping = False
        self._abandoned = False
        self._allowed_at: float | None = None  # when the rate allows the next call, if one waits for it
        self._plan = plan
        self._may_wait = plan.task.rate is not None or plan.task.batch is not None
        self._shared = shared
        self._stream = shared.stream if streams else None
        self._running: dict[Held, float] = {}  # and when each call began, the oldest first
        self._overdue = Overdue(plan.task.name, plan.task.lease)
        self._calls = 0  # under way
        self._batch_since: float | None = None  # when a batch that is not full began to wait
        self._refused: Held | None = None
        self._suspects: dict[str, int] = {}
        self._told: set[str] = set()
        self.executor = self._make_executor()

    def _make_executor(self) -> Executor:
        task, step, shared = self.task, self._plan.step, self._shared
        if self._plan.kind.is_async:
            # With asyncio, which is slow to import.
            from sqspipes.runner.loop import LoopExecutor

            loop = shared.loop.get()
            return LoopExecutor(
                task.domain, task.name, task.workers, self._call, self._conclude, self, loop, shared.died
            )
        leave = step.leave if step is not None else lambda: None
        name = f"{task.domain} {task.name}"
        return ThreadExecutor(name, task.workers, self._perform, self, shared.died, leave)

    # From the intake

    def take(self, level: int, deliveries: Sequence[Delivery], received: float) -> bool:
        """Take in what a receive gave; what is held or was handed on here already is no second call.

        Returns whether some of it was put with a group.
        """
        leases, lease = self._shared.leases, self.task.lease
        new: list[Held] = []
        suspicious = grouped = False
        blocked: set[str] = set()  # groups whose first message was given back: the rest would overtake it
        for delivery in deliveries:
            if delivery.group in blocked:
                self._shared.settler.give_back_delivery(delivery)
            elif leases.renew(delivery, received, lease):
                continue
            elif leases.was_handed_on(delivery):
                self._shared.settler.acknowledge_delivery(delivery)
            elif (message := self._read(delivery, level)) is None:
                blocked.add(delivery.group)
            else:
                linger = self.linger if message.group is not None else LINGERS_OF_ACK * self.linger
                attempt = self._shared.attempts.recall(delivery)
                held = Held(delivery, message, level, lease, received, linger, *attempt)
                suspicious |= held.suspect
                grouped |= message.group is not None
                new.append(held)
        if not self._shared.heard.is_set():
            self._shared.heard.set()
        if suspicious and len(new) > 1:
            # It comes again alone: of the receives that bury a killer, only some are its company's too.
            for held in new:
                self._shared.attempts.remember(held)
                self._shared.settler.give_back_delivery(held.delivery)
            return False
        leases.hold(new)
        with self.lock:
            stopping = self.stopping
            for held in new:
                if held.suspect:
                    self._count_suspect(held, 1)
                if not stopping:
                    self.lanes.add(held)
        if stopping:
            for held in new:
                self._shared.settler.give_back(held)
        elif new:
            self.pump()
        return grouped

    def _read(self, delivery: Delivery, level: int) -> Message | None:
        """Return a delivery's message; one that cannot be read goes through its lane to the dead letters."""
        try:
            return decode(delivery, level)
        except NewerFormatError as error:
            backoff = ExponentialBackoff(NEWER_FORMAT_SECONDS, self._shared.broker.limits.longest_lease)
            delay = backoff.seconds(delivery.receives)
            logger.warning(
                "%s: message %s given back for %.0f s: %s", self.task.name, delivery.id, delay, error
            )
            self._shared.settler.give_back_delivery(delivery, delay)
            return None
        except DecodingError:
            return foreign(delivery, raw=delivery.body, level=level)

    # Lanes to executor

    def pump(self) -> None:
        """Start as many calls as there are free slots and ready lanes."""
        self._fill_slots()

    def _fill_slots(self, *, keep_one: bool = False) -> Call | None:
        """Start calls; with ``keep_one`` the first is returned for the caller to run."""
        while True:
            begun, unreadable = self._begin_calls()
            kept = begun.pop(0) if keep_one and begun and not unreadable else None
            if begun:
                self.executor.start(begun)
            if not unreadable:
                return kept
            for held in unreadable:
                self._bury_unreadable(held)

    def _begin_calls(self) -> tuple[list[Call], list[Held]]:
        """Return the calls to start, and the messages at the head of their lanes that no call can be made for."""
        begun: list[Call] = []
        unreadable: list[Held] = []
        with self.lock:
            now = self._shared.leases.clock.now()
            while not self.stopping and self._calls < self.executor.slots:
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
                    unreadable.append(held)
                elif self._shared.gate.enter(held):
                    self._refused = None
                    self.lanes.start(held)
                    self.lanes.begun(held)
                    self.pace.begun(now)
                    begun.append(self._make_call(held, now))
                    self._calls += 1
                else:
                    self._refused = held if held.suspect else None
                    break
            self._announce_room()
        if begun and self._plan.kind.is_async:
            self._shared.tick(now + BLOCKED_SECONDS)
        return begun, unreadable

    def _refused_first(self) -> Held | None:
        """Return the suspect that the gate refused, unless a higher level has to go before it; the lock is held."""
        held = self._refused
        if held is None or not self.task.strict:
            return held
        if held.level >= self.lanes.floor and not any(c.ready for c in self.lanes.of[held.level + 1 :]):
            return held
        self._shared.gate.forget(held)
        self._refused = None
        return None

    def _make_call(self, held: Held, now: float) -> Call:
        """Return the call of a message that has begun, with as many others as go with it; the lock is held."""
        together = [held]
        if self.task.batch is not None and not held.suspect:
            self._gather(together, self.task.batch, now)
        began = clocks.monotonic()
        for one in together:
            self._running[one] = began
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
        plain = held.message.raw is None and not held.suspect and self._shared.leases.alive(held, now)
        return plain and self._shared.gate.enter(held)

    def _waits_for_more(self, now: float) -> bool:
        """Say whether a batch is to wait until it is full, and have the keeper ask again; the lock is held."""
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
        self._shared.tick(due)
        return True

    def wake(self, now: float) -> float | None:
        """Start what may go on: backoffs that are over, a call that the rate allows; return when more is due."""
        with self.lock:
            woken = self.lanes.wake(now)
            allowed, self._allowed_at = self._allowed_at, None
        if woken or allowed is not None:
            self.pump()
        with self.lock:
            dues = [due for due in (self.lanes.next_wake(), self._allowed_at) if due is not None]
        return min(dues, default=None)

    def _too_soon(self, now: float) -> bool:
        """Say whether the rate allows no call yet, and have the keeper ask again; the lock is held."""
        seconds = self.pace.seconds_to_call(now)
        if seconds:
            self._allowed_at = now + seconds
            self._shared.tick(self._allowed_at)
        return seconds > 0

    # From the executor: the Engine port

    def _perform(self, call: Call) -> list[Outcome]:
        if self.task.batch is not None:
            return perform_batch(self._plan, call.messages, self)
        (held,) = call.messages
        token = current.begin(held, self._shared.leases.clock)
        try:
            return [calls.perform(self._plan, held, self)]
        finally:
            current.end(token)

    def _call(self, held: Held) -> Any:
        """Return an async function's coroutine or generator for a message."""
        current.begin(held, self._shared.leases.clock)  # in an asyncio task of its own
        return called(self._plan.function, held.message.value, *self.task.args)

    def _conclude(self, held: Held, result: Callable[[], Any]) -> Outcome:
        token = current.begin(held, self._shared.leases.clock)
        try:
            return calls.conclude(self._plan, held, self, result)
        finally:
            current.end(token)

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        """Pass one output on to the next queue, and then to whoever iterates over this run's results.

        The last one of a message's call goes when the call has ended, with those of other calls.
        """
        if self._abandoned:
            raise Abandoned
        stream, target = self._stream, emission.task
        if stream is not None:
            stream.wait_for_room()
        if target is None:
            if stream is None:
                check_nothing_lazy(emission.value, f"result of {self.task.name}")
                return
            self._shared.settler.expect(origin)
            stream.offer(origin, emission.value)
            return
        parent = origin.message if isinstance(origin, Held) else None
        task = self._plan.tasks[target]
        message = Message(
            id=emission.id,
            value=emission.value,
            group=emission.group,
            priority=task.level(emission.priority),
            first_put=parent.first_put if parent else time.time(),
            extra=calls.passed_on(parent.extra, self.task, task) if parent else {},
        )
        queue = task.queue(message.priority)
        entry = message_entry(
            self._shared.message_bytes(queue), queue, message, emission.text, f"result of {self.task.name}"
        )
        output = (queue, entry.group, entry.id, emission.content)
        if isinstance(origin, Held) and origin.handed_on is not None and origin.handed_on.had(output):
            return
        arrived = None if stream is None else lambda: stream.offer(origin, emission.value)
        parcel = Parcel(origin, queue, entry, arrived, self.linger, output)
        if last and isinstance(origin, Held):
            origin.result = parcel
        else:
            self._shared.settler.send(parcel)

    def flush(self, origin: Origin) -> None:
        """Wait until all that was emitted so far is safe."""
        if isinstance(origin, Held):
            self._send_results([origin])
        self._shared.settler.flush(origin)

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives, from the run's event loop."""
        return self._shared.loop.result(made)

    def done(self, *ended: Ended) -> Call | None:
        """Settle calls: acknowledge, park for the next try, or bury; return one that their thread may run next."""
        called = [held for call, _ in ended for held in call.messages]
        unsettled, given_up = called, False
        try:
            self._send_results(called)
            # From here on another thread may call the same messages again: they are not this call's any more.
            unsettled = []
            self._settle_calls(ended)
        except Abandoned:
            given_up = True
        finally:
            self._end_calls(called, len(ended), unsettled)
        if given_up or self.stopping:
            self._shared.quiet()
        return None if given_up else self._fill_slots(keep_one=True)

    def _end_calls(self, called: Sequence[Held], calls: int, unsettled: Sequence[Held]) -> None:
        """Count calls as over, however they ended; ``unsettled`` are messages that still count as running."""
        with self.lock:
            self._calls -= calls
            for held in unsettled:
                self._running.pop(held, None)
        self._shared.gate.leave(*called)

    def _send_results(self, helds: Sequence[Held]) -> None:
        parcels = [held.result for held in helds if held.result is not None]
        if parcels:
            if self._abandoned:
                raise Abandoned
            self._shared.settler.send(*parcels)
            for held in helds:
                held.result = None

    def _settle_calls(self, ended: Sequence[Ended]) -> None:
        finished: list[Held] = []
        others: list[list[tuple[Held, Outcome]]] = []
        with self.lock:
            now = clocks.monotonic()
            seconds = [now - self._running[call.messages[0]] for call, _ in ended]
            for (call, outcomes), took in zip(ended, seconds, strict=True):
                for held, outcome in zip(call.messages, outcomes, strict=True):
                    del self._running[held]
                    self._count(outcome, took)
                if outcomes.count(DONE) == len(outcomes):
                    finished += call.messages
                else:
                    others.append(list(zip(call.messages, outcomes, strict=True)))
            if self._abandoned:
                return
        self._log_done(ended, seconds)
        self._finish(*finished)
        for pairs in others:
            self._end_all(pairs)

    def _log_done(self, ended: Sequence[Ended], seconds: Sequence[float]) -> None:
        if logger.isEnabledFor(logging.DEBUG):
            for (call, outcomes), took in zip(ended, seconds, strict=True):
                for held, outcome in zip(call.messages, outcomes, strict=True):
                    if outcome is DONE:
                        logger.debug("%s %s done in %.3f s", self.task.name, held.message.id, took)

    def _count(self, outcome: Outcome, seconds: float) -> None:
        ok = outcome.ending is Ending.DONE
        if outcome.ending is not Ending.BEHIND:
            self.pace.called(seconds, ok=ok)
            self.counts.done += ok
            self.counts.failed += not ok

    def _end_all(self, ended: Sequence[tuple[Held, Outcome]]) -> None:
        """End what was called together; what is behind one of its group that will be called again waits for it."""
        goes_on: list[tuple[Held, Outcome]] = []
        waited_for: set[tuple[str, str]] = set()
        for held, outcome in ended:
            lane = (held.delivery.queue, held.delivery.group)
            if lane in waited_for:
                # Before the one it waits for is parked: from then on another call may begin with both.
                self._renew(held, failed=outcome.ending is not Ending.BEHIND)
                continue
            goes_on.append((held, outcome))
            if outcome.ending in (Ending.BEHIND, Ending.RETRY, Ending.RAISE):
                waited_for.add(lane)
        for held, outcome in goes_on:
            if outcome.ending is Ending.BEHIND:  # what it was behind is a dead letter
                self._renew(held, failed=False)
                self._park(held, self._shared.leases.clock.now())
            else:
                self._end(held, outcome)

    @staticmethod
    def _renew(held: Held, *, failed: bool) -> None:
        """Make a message ready for another call."""
        held.failures += failed
        held.message, held.refused = as_received(held), None
        if held.handed_on is not None:
            held.handed_on.begin()

    def abandoned(self, call: Call) -> None:
        """Note a call that ended because its run had given it up."""
        self._end_calls(call.messages, 1, call.messages)
        self._shared.quiet()

    def _end(self, held: Held, outcome: Outcome) -> None:
        if outcome.ending is Ending.DONE:
            self._finish(held)
        elif outcome.ending is Ending.DEAD and outcome.death is not None:
            self._bury(held, outcome.death, outcome.error)
        else:
            self._renew(held, failed=True)
            self._try_again(held, outcome)

    def _try_again(self, held: Held, outcome: Outcome) -> None:
        error = outcome.error or RuntimeError("failed")
        if outcome.ending is Ending.RAISE:
            self._end_run(held, error)
            return
        retries = "no limit" if self.task.retries is None else self.task.retries + 1
        logger.warning(
            "%s %s failed, attempt %d of %s, again in %.1f s: %s",
            self.task.name, held.message.id, held.failures, retries, outcome.delay, calls.describe(error),
        )  # fmt: skip
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s failed", self.task.name, held.message.id, exc_info=calls.loggable(error))
        self._park(held, self._shared.leases.clock.now() + outcome.delay)

    def _end_run(self, held: Held, error: BaseException) -> None:
        """Stop the run by a task's error; the message goes back."""
        logger.error("%s %s failed, the run ends: %s", self.task.name, held.message.id, calls.describe(error))
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("%s %s failed", self.task.name, held.message.id, exc_info=calls.loggable(error))
        self._shared.raised(error)
        with self.lock:
            self.stopping = True
        self._park(held, self._shared.leases.clock.now())

    def _park(self, held: Held, due: float) -> None:
        """Keep a message, and what is behind it, for a call when it is due."""
        with self.lock:
            self.lanes.park(held, due)
            if not self._shared.leases.alive(held):
                self._drop_lost(held)
            elif self.stopping:
                self._give_back(self.lanes.drop(held))
            else:
                self._keep_few_parked(held, due)
        self._shared.tick(due)

    def _keep_few_parked(self, held: Held, due: float) -> None:
        """Have a parked message wait at the broker if too many do here; the lock is held.

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
        left = self._shared.broker.limits.longest_lease - (now - held.received)
        for one in reversed(self.lanes.drop(held)):  # what waits behind it goes first
            self._shared.attempts.remember(one)
            self._shared.settler.give_back(one, max(0.0, min(due - now, left)) if one is held else 0.0)

    def _tell_of_parked(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning(
                "%s: %d messages that failed, and %d behind them, wait here for another attempt: %s",
                self.task.name, self.lanes.parked, self.lanes.waiting, what,
            )  # fmt: skip

    # To the settler, and from it

    def _finish(self, *helds: Held) -> None:
        """Let lanes go on and have their messages acknowledged when the outputs are safe."""
        with self.lock:
            for held in helds:
                self.lanes.finish(held)
            self.settling += len(helds)
        self._shared.settler.finish(*helds)

    def _bury(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        self._send_letter(held, death, error)
        self._finish(held)

    def _bury_unreadable(self, held: Held) -> None:
        error = DecodingError("the body holds a raw text in place of a value")
        try:
            decode(held.delivery)
        except DecodingError as reason:
            error = reason
        self._bury(held, calls.death(self.task, error, held.failures + 1), error)

    def _send_letter(self, held: Held, death: messages.Death, error: BaseException | None) -> None:
        logger.error(
            "%s %s is a dead letter after %d attempts: %s: %s; see client.dead_letters(%r)",
            self.task.name, held.message.id, death.attempts, death.error_type, death.error, self.task.name,
            exc_info=calls.loggable(error),
        )  # fmt: skip
        held.buried = True
        entry = letter_entry(self.task, held, death, self._shared.message_bytes(self.task.dead_queue))

        def arrived() -> None:
            with self.lock:
                self.counts.dead += 1
            self._shared.settler.safe(held)

        self._shared.settler.send(Parcel(held, self.task.dead_queue, entry, arrived))

    def refused(self, held: Held) -> None:
        """Bury a message one of whose outputs its queue will never take."""
        reason, held.refused = held.refused, None
        if held.buried:
            logger.error("%s %s: its dead letter was refused: %s", self.task.name, held.message.id, reason)
            self._shared.settler.give_back(held, held.lease)
            return
        held.done = False
        death = calls.death(self.task, TooLargeError(f"an output was refused: {reason}"), held.failures + 1)
        try:
            self._send_letter(held, death, None)
        except Abandoned:  # during a stop, which had no time for it any more
            held.done = True
            self._shared.settler.give_back(held)
            return
        self._shared.settler.finish(held)

    def settled(self, helds: Sequence[Held]) -> None:
        """Free the room of messages that are not held any more."""
        suspects = [held for held in helds if held.suspect]
        with self.lock:
            done = [held for held in helds if held.done]
            self.settling -= len(done)
            unblocked = sum(held.message.group is not None for held in done)
            if unblocked:
                self.unblocked += unblocked
                self.unblocking.notify_all()
            for held in suspects:
                self._count_suspect(held, -1)
                if self._refused is held:
                    self._refused = None
            self._announce_room()
        for held in suspects:
            self._shared.gate.forget(held)

    def lost(self, held: Held) -> None:
        """Note a lease that another process may have by now."""
        held.lost = True
        logger.warning("%s %s: its lease was lost", self.task.name, held.message.id)
        with self.lock:
            self._drop_lost(held)

    def _drop_lost(self, held: Held) -> None:
        """Leave a lost message that does not run to the broker, with what waits behind it."""
        self._give_back(self.lanes.drop(held))

    def _give_back(self, helds: Sequence[Held]) -> None:
        for held in helds:
            self._shared.settler.give_back(held)

    @property
    def unsettled(self) -> int:
        """The messages that settle beyond some requests' worth: they use room, as what is ready or running does."""
        return max(0, self.settling - self._settling_free)

    def _announce_room(self) -> None:
        """Let receivers begin if there is something to do for one of them; the lock is held."""
        if self.invite is None:
            return
        if self.task.priorities > 1:  # each level has room of its own
            self.invite()
            return
        room = self.pace.capacity - self.lanes.active - self.unsettled
        wanted = room > 0 and self.lanes.ready < self.appetite
        if wanted or room >= self._shared.broker.limits.entries:
            self.invite()

    def _count_suspect(self, held: Held, step: int) -> None:
        queue = held.delivery.queue
        self._suspects[queue] = self._suspects.get(queue, 0) + step

    # Watching and stopping

    @property
    def shut(self) -> bool:
        """Whether nothing that comes in now could run: a suspect runs in this process, or is to run next."""
        return self._shared.gate.shut

    def is_suspicious(self, delivery: Delivery) -> bool:
        """Say whether a message was received so often, by others or before, that it may kill its process."""
        if delivery.receives <= MOST_INNOCENT_RECEIVES:
            return False
        return delivery.receives - self._shared.attempts.of(delivery).given_back > MOST_INNOCENT_RECEIVES

    def suspects(self, queue: str) -> int:
        """Count the suspects held of one queue."""
        return self._suspects.get(queue, 0)

    @property
    def idle(self) -> bool:
        """Whether nothing is held, running or settling here."""
        return self.lanes.empty and not self.running and not self.settling

    @property
    def running(self) -> int:
        """Calls under way."""
        return self._calls

    def oldest_call(self) -> float | None:
        """Return the seconds that the oldest running call has been running."""
        with self.lock:
            return clocks.monotonic() - min(self._running.values()) if self._running else None

    def watch(self) -> float | None:
        """Warn of calls that run for long; return the seconds until there may be another one to warn of."""
        with self.lock:
            now = clocks.monotonic()
            overdue = self._overdue.look(self._running, now)
            blocked = self.executor.watch(now) if self._running else None
        return min((seconds for seconds in (overdue, blocked) if seconds is not None), default=None)

    def quiesce(self) -> None:
        """Start no more calls, and give back what was not started."""
        with self.lock:
            self.stopping = True
            dropped = self.lanes.drop_idle()
        self._give_back(dropped)
        self.executor.close()

    def abandon(self) -> list[str]:
        """Leave the messages of calls that still run to come back; return their ids."""
        with self.lock:
            self._abandoned = True
            for held in self._running:
                self._shared.leases.drop(held)
            return [held.message.id for held in self._running]
