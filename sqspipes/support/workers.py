"""Workers: a few threads that do what is given to them, also after the main thread has ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


class Workers:
    """A pool of ``most`` threads, which may be ``math.inf``; one is started only when none has nothing to do.

    A thread ends when it has had nothing to do for ``idle_seconds``; None for never.

    That of ``concurrent.futures`` takes nothing any more once the main thread has ended, though the process goes on
    as long as other threads do.
    """

    def __init__(self, most: float, name: str, idle_seconds: float | None = None) -> None:
        self._most = most
        self._name = name
        self._idle_seconds = idle_seconds
        self._started = 0
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle: deque[None] = deque()  # one for each thread that has nothing to do

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Have a thread do something; the future tells what came of it."""
        future: Future[Result] = Future()
        try:
            self._idle.pop()
        except IndexError:
            if len(self._threads) < self._most:
                self._start()
        self._work.put((future, lambda: work(*arguments)))
        return future

    def _start(self) -> None:
        self._started += 1
        name = f"{self._name} {self._started}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Before it starts: a signal's handler may raise while that is waited for.
        self._threads.append(thread)
        try:
            thread.start()
        except Exception:  # the machine has no more threads
            self._threads.remove(thread)
            raise

    def map(self, work: Callable[[Given], Result], given: Iterable[Given]) -> list[Result]:
        """Do something for each, several at once; the first error is raised once all are over."""
        futures = [self.submit(work, one) for one in given]
        self.shutdown()
        return [future.result() for future in futures]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when all is done, or what was begun."""
        while cancel_futures:
            try:
                begun = self._work.get_nowait()
            except Empty:
                break
            if begun is not None:
                begun[0].cancel()
        for _ in self._threads:
            self._work.put(None)
        if wait:
            for thread in self._threads:
                with suppress(RuntimeError):  # its start was interrupted: it has nothing to do
                    thread.join()

    def _run(self) -> None:
        while (begun := self._next()) is not None:
            future, work = begun
            del begun
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, work
            self._idle.append(None)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """Wait for work; None at the end, and after ``idle_seconds`` without any."""
        while True:
            try:
                return self._work.get(timeout=self._idle_seconds)
            except Empty:
                # Whoever gives work takes such a mark, and relies on the thread that made it.
                with suppress(IndexError):
                    self._idle.pop()
                    self._threads.remove(threading.current_thread())
                    return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
