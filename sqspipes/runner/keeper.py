"""Keeper: the one thread of a run that watches the clock, for backoffs, leases and requests without an answer."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

from sqspipes.runner.dispatcher import Dispatcher
from sqspipes.runner.gate import Gate
from sqspipes.runner.held import Held
from sqspipes.runner.leases import SHORTEST_EXTEND, Leases
from sqspipes.runner.outage import Outage
from sqspipes.runner.settler import Abandoned, Settler
from sqspipes.runner.source import Source
from sqspipes.support import lines

logger = lines.logger(__name__)

#: Seconds for which a stop waits for the keeper, which may be waiting for a queue that is behind.
STOP_SECONDS = 1.0

#: Seconds that it sleeps at most: the lease clock may run ahead of the one that measures sleep.
LONGEST_SLEEP = 60.0

#: Seconds without a message after which the log says what the run waits for.
QUIET_SECONDS = 10.0


class Keeper:
    """Wakes parked messages, extends leases, and says so when nothing comes in or a call runs for long.

    A request that is lost, as it has neither answered nor failed for too long, ends the run.
    """

    def __init__(
        self,
        dispatchers: Sequence[Dispatcher],
        leases: Leases,
        gate: Gate,
        settler: Settler,
        outage: Outage,
        domain: str,
        lost: Callable[[Held], None],
        sources: Sequence[Source],
        heard: threading.Event,
        died: Callable[[str, BaseException], None],
    ) -> None:
        self._dispatchers = dispatchers
        self._leases = leases
        self._gate = gate
        self._settler = settler
        self._outage = outage
        self._lost = lost
        self._sources = sources
        self._heard = heard
        self._died = died
        self._changed = threading.Condition()
        self._planned = math.inf  # when it will look again by itself; while it looks, every tick counts
        self._ticked = False
        self._pump = False
        self._stopped = False
        self._quiet_at: float | None = leases.clock.now() + QUIET_SECONDS
        self._thread = threading.Thread(target=self._work, name=f"sqspipes keeper {domain}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def tick(self, due: float) -> None:
        """Be awake at a time of the lease clock."""
        if due < self._planned:
            with self._changed:
                self._ticked = True
                self._changed.notify()

    def pump(self) -> None:
        """Let all tasks start what they may: the gate has opened."""
        with self._changed:
            self._pump = True
            self._changed.notify()

    def _work(self) -> None:
        try:
            while not self._stopped:
                due = self._look()
                with self._changed:
                    if not (self._ticked or self._pump or self._stopped):
                        self._planned = due
                        self._changed.wait(min(due - self._leases.clock.now(), LONGEST_SLEEP))
                    self._planned, self._ticked = math.inf, False
        except Abandoned:
            return
        except BaseException as error:
            self._died("keeper", error)

    def _look(self) -> float:
        """Do all that is due; return when there will be more."""
        gate = self._gate.look()
        with self._changed:
            pump, self._pump = self._pump, False
        now = self._leases.clock.now()
        dues = [dispatcher.wake(now) for dispatcher in self._dispatchers]
        if pump:
            for dispatcher in self._dispatchers:
                dispatcher.pump()
        helds, next_lease = self._leases.due()
        for held in helds:
            if self._leases.wanted(held) >= SHORTEST_EXTEND:
                self._settler.extend(held)
            else:
                self._lost(held)  # the broker's longest lease is over
        # A call that begins later is looked at in time, too: its lease will have to be extended before.
        watched = [dispatcher.watch() for dispatcher in self._dispatchers]
        watched += [source.watch() for source in self._sources]
        dues += [now + seconds for seconds in watched if seconds is not None]
        dues += [gate, next_lease, self._watch_quiet(now), now + self._watch_requests()]
        return min((due for due in dues if due is not None), default=math.inf)

    def _watch_requests(self) -> float:
        lost, seconds = self._outage.look()
        for part, error in lost:
            self._died(part, error)
        return seconds

    def _watch_quiet(self, now: float) -> float | None:
        if self._quiet_at is not None and self._heard.is_set():
            self._quiet_at = None
        if self._quiet_at is not None and now >= self._quiet_at:
            self._quiet_at = None
            logger.info("waiting for put()")
        return self._quiet_at
