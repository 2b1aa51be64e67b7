"""CallThreads: the threads of one task's calls."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from sqspipes.calls.outcome import Call
from sqspipes.support import clocks


class CallThreads:
    """The threads of one task's calls, ``most`` at most, started as calls come.

    More calls than threads may be given ahead: a thread that ends a call begins the next one without waiting for the
    engine. One sleeping thread is woken at a time. When it takes a call it wakes the next thread, if there is another
    call, so that short calls stay in few threads. Each thread calls ``leave`` at its end, and ``hasten`` when a call
    has ended and no other one waits: word of ended calls can wait only as long as threads have something to do.

    ``give``, ``take_back`` and ``close`` are called in the engine's turn.
    """

    def __init__(
        self,
        name: str,
        most: int,
        run: Callable[[Call], object],
        died: Callable[[str, BaseException], object],
        leave: Callable[[], object] = lambda: None,
        hasten: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._most = most
        self._run = run
        self._died = died
        self._leave = leave
        self._hasten = hasten
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._sleeping: list[
            threading.Lock
        ] = []  # one for each thread that sleeps; its release wakes the thread
        self._is_waking = False  # a thread was woken, or started, and has not looked for a call yet
        self._threads: list[threading.Thread] = []
        self._alive = 0  # threads that have not seen the close
        self._is_closed = False

    def give(self, calls: Iterable[Call]) -> None:
        """Have threads run calls, in order. Raises where there is no thread for them, which are not run then."""
        given = list(calls)
        self._calls.extend(given)
        with self._lock:
            try:
                self._wake()
            except BaseException:
                for call in given:
                    with suppress(ValueError):  # a thread has it
                        self._calls.remove(call)
                raise

    def take_back(self) -> list[Call]:
        """Return the calls that no thread has begun; none of them will be."""
        taken: list[Call] = []
        while True:
            try:
                taken.append(self._calls.pop())
            except IndexError:
                return taken[::-1]

    def close(self) -> None:
        """Let idle threads end; calls that run go on."""
        with self._lock:
            self._is_closed = True
            for bed in self._sleeping:
                bed.release()
            self._sleeping.clear()

    def join(self, deadline: float) -> None:
        """Wait until what is idle has ended, until ``deadline`` (monotonic) at most; after the ``close``."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - clocks.monotonic()))

    def watch(self, now: float) -> None:
        """Warn of nothing: a call that lasts holds up no other one."""

    def _wake(self) -> None:
        """Have a thread look for calls, unless one is about to; the lock is held."""
        if self._is_waking or not self._calls:
            return
        if self._sleeping:
            self._is_waking = True
            self._sleeping.pop().release()
        elif self._alive < self._most:
            name = f"sqspipes worker {self._name} {len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
            self._alive += 1
            self._is_waking = True

    def _work(self) -> None:
        bed = threading.Lock()
        bed.acquire()
        try:
            with self._lock:
                self._is_waking = False
            while (call := self._next(bed)) is not None:
                self._run(call)
                if not self._calls:
                    self._hasten()
                del call  # a thread that waits keeps nothing of its last message
            self._leave()
        except BaseException as error:
            self._died(f"worker {self._name}", error)

    def _next(self, bed: threading.Lock) -> Call | None:
        """Wait for a call; None when there will be none."""
        while True:
            with self._lock:
                try:
                    call = self._calls.popleft()
                except IndexError:
                    if self._is_closed:
                        self._alive -= 1
                        return None
                    self._sleeping.append(bed)
                else:
                    try:
                        self._wake()
                    except BaseException:
                        self._calls.appendleft(call)  # it can be taken back
                        raise
                    return call
            bed.acquire()
            with self._lock:
                self._is_waking = False
