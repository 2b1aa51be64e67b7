"""Loop: what the leading thread waits for. Timers that are due, word from other threads, sockets that are ready."""

from __future__ import annotations

import heapq
import itertools
import math
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from sqspipes.support import clocks

Do: TypeAlias = Callable[[], object]

#: Timers that were cancelled and still wait for their time, beyond which they are taken out.
MOST_CANCELLED = 1_000

#: Seconds for which word that can wait is gathered, as long as there is some in each turn: a thread that wakes for
#: each of 1,200 a second costs a fifth more CPU (tasks of 50 ms with 64 workers).
GATHERING_SECONDS = 0.005


class Timer:
    """Something to be done at a time; ``cancel`` calls it off."""

    __slots__ = ("_loop", "do", "when")

    def __init__(self, loop: EngineLoop, when: float, do: Do) -> None:
        self._loop = loop
        self.when = when
        self.do: Do | None = do

    def cancel(self) -> None:
        """Do nothing at that time; a timer that is over can be cancelled, too."""
        if self.do is not None:
            self.do = None
            self._loop.cancelled()


class EngineLoop:
    """Runs the engine's turns. All methods but those that tell are called by the thread that leads.

    ``clock`` returns seconds that never go back. In a turn come first the timers that are due, then the word in the
    inbox, then the sockets. What is told or timed inside a turn waits for the next one, so that a turn ends.
    """

    def __init__(
        self, selector: selectors.BaseSelector | None = None, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._selector = selectors.DefaultSelector() if selector is None else selector
        self._clock = clock
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._inbox: deque[Do] = deque()
        self._is_waiting = False  # or about to wait, and has not looked into the inbox since
        self._has_urgent = False  # the inbox has word that cannot wait
        self._has_patient = False  # and word that can, told since the last turn
        self._gathers = False  # lets word that can wait
        self.errors: list[
            BaseException
        ] = []  #: what was raised by what a turn did; the rest was done all the same
        self._wakeup = _WakeupDescriptor()
        self.turns = 0  #: how many turns there were, this one included
        self._selector.register(self._wakeup.descriptor, selectors.EVENT_READ, self._wakeup.drain)

    # From any thread

    def tell(self, do: Do) -> None:
        """Have something done in the next turn, and end the wait of this one; in the order in which it was told."""
        self._inbox.append(do)
        self._has_urgent = True
        if self._is_waiting:
            self._wakeup.wake()

    def tell_soon(self, do: Do) -> None:
        """Have something done, in the order in which it was told, in a turn that may be ``GATHERING_SECONDS`` off."""
        self._inbox.append(do)
        self._has_patient = True
        if self._is_waiting and not self._gathers:
            self._wakeup.wake()

    def hasten(self) -> None:
        """Let word wait no longer."""
        self._has_urgent = True
        if self._is_waiting and self._gathers:
            self._wakeup.wake()

    # In the engine's turn

    def now(self) -> float:
        """Return the clock's time."""
        return self._clock()

    def at(self, when: float, do: Do) -> Timer:
        """Have something done at a time, or as soon after it as a turn comes."""
        timer = Timer(self, when, do)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def later(self, seconds: float, do: Do) -> Timer:
        """Have something done after so many seconds."""
        return self.at(self._clock() + seconds, do)

    def watch(self, file: int | socket.socket, events: int, do: Do) -> None:
        """Have something done in each turn in which a socket is ready; in place of what was said of it before."""
        try:
            self._selector.modify(file, events, do)
        except KeyError:
            self._selector.register(file, events, do)

    def unwatch(self, file: int | socket.socket) -> None:
        """Look at a socket no more; to be called before it is closed."""
        with suppress(KeyError):
            self._selector.unregister(file)

    def turn(self, longest: float = math.inf) -> None:
        """Wait until there is something to do, ``longest`` seconds at most, and do it."""
        # Whoever tells looks at this after the inbox has what is told, and the inbox is looked at after this is set.
        self._is_waiting = True
        ready = self._selector.select(self._seconds_to_wait(longest))
        self._is_waiting = False
        self.turns += 1
        now = self._clock()
        due = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            do, timer.do = timer.do, None
            if do is None:
                self._cancelled -= 1
            else:
                self._do(do)
        self._gathers, self._has_patient, self._has_urgent = self._has_patient, False, False
        for _ in range(len(self._inbox)):
            self._do(self._inbox.popleft())
        for key, _ in ready:
            self._do(key.data)

    def _do(self, do: Do) -> None:
        try:
            do()
        except BaseException as error:
            self.errors.append(error)

    def _seconds_to_wait(self, longest: float) -> float | None:
        if self._has_urgent or (self._inbox and not self._gathers):
            return 0.0
        if self._gathers:
            longest = min(longest, GATHERING_SECONDS)
        if self._timers:
            longest = min(longest, self._timers[0][0] - self._clock())
        return None if longest == math.inf else max(0.0, longest)

    def cancelled(self) -> None:
        """Take note of a timer that was cancelled: many that are far off may not pile up."""
        self._cancelled += 1
        if self._cancelled > MOST_CANCELLED and self._cancelled > len(self._timers) // 2:
            self._timers = [one for one in self._timers if one[2].do is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def close(self) -> None:
        """Close the selector and the wake-up; sockets are their owners'.

        In a forked child nothing is unregistered: the parent's selector may be the same one in the kernel.
        """
        self._selector.close()
        self._wakeup.close()


class _WakeupDescriptor:
    """Ends the wait of a selector, from any thread; a second wake before the drain costs nothing."""

    def __init__(self) -> None:
        # A descriptor that is closed may be another file's soon. A signal's handler may tell in the middle of a tell.
        self._lock = threading.RLock()
        self._closed = False
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return
        self._sockets = reader, writer = socket.socketpair()
        for one in (reader, writer):
            one.setblocking(False)
        self.descriptor = reader.fileno()

    def wake(self) -> None:
        """Make the descriptor readable."""
        with self._lock, suppress(BlockingIOError):  # so full that it wakes anyway
            if self._closed:
                return
            if self._sockets is None:
                os.eventfd_write(self.descriptor, 1)
            else:
                self._sockets[1].send(b".")

    def drain(self) -> None:
        """Make the descriptor unreadable until the next wake."""
        with suppress(BlockingIOError):
            if self._sockets is None:
                os.eventfd_read(self.descriptor)
            else:
                while self._sockets[0].recv(4096):
                    pass

    def close(self) -> None:
        """Close the descriptors; whoever wakes afterwards wakes nobody."""
        with self._lock:
            self._closed = True
            if self._sockets is None:
                os.close(self.descriptor)
            else:
                for one in self._sockets:
                    one.close()
