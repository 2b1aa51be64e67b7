"""A process that runs the pipe again and again with one client, and leaves each run in another way.

Settings are those of ``worker.py``, and ``ways``: the functions of this module to leave by, in turn. After each
it looks whether a thread of sqspipes is left or a message is hidden, and logs ``left by``.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from worker import pipe, settings

from sqspipes import Results, TaskClient

logger = logging.getLogger("program")

TASKS = ["one", "two", "three"]
CALLS = 60


class ReaderError(Exception):
    """What a reader raises."""


class Countdown:
    """Does something in the call that is the last of so many."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self._numbers = itertools.count(1)
        self._then = then

    def __call__(self) -> None:
        if next(self._numbers) == CALLS:
            self._then()


countdown = Countdown()


def counted(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def call(value: Any) -> Any:
        countdown()
        return function(value)

    return call


def in_a_task(client: TaskClient) -> None:
    """``stop()`` inside a task."""
    global countdown
    countdown = Countdown(client.stop)
    assert client.run(TASKS).reason == "stopped"


def in_a_thread(client: TaskClient) -> None:
    """``stop()`` from a thread that has nothing to do with the run."""
    global countdown
    countdown = Countdown(threading.Thread(target=client.stop).start)
    assert client.start(TASKS).wait(60).reason == "stopped"


def by_break(client: TaskClient) -> None:
    with client.run(TASKS, iterate=True) as results:
        for number, _ in enumerate(results):
            if number == CALLS:
                break


def by_break_without_a_block(client: TaskClient) -> None:
    for number, _ in enumerate(client.run(TASKS, iterate=True)):
        if number == CALLS:
            break
    for thread in ours():  # nobody waits for that run's end
        thread.join(60)


def by_return(client: TaskClient) -> Any:
    with client.run(TASKS, iterate=True) as results:
        for number, result in enumerate(results):
            if number == CALLS:
                return result
    return None


def by_exception(client: TaskClient) -> None:
    with contextlib.suppress(ReaderError), client.run(TASKS, iterate=True) as results:
        for number, _ in enumerate(results):
            if number == CALLS:
                raise ReaderError


def by_interrupt(client: TaskClient) -> None:
    """As in a notebook: the main thread has the results of a run that another one began, and is interrupted."""
    global countdown
    begun: list[Results] = []
    beginner = threading.Thread(target=lambda: begun.append(client.run(TASKS, iterate=True)))
    countdown = Countdown(interrupt)
    beginner.start()
    beginner.join()
    read = 0
    with contextlib.suppress(KeyboardInterrupt), begun[0] as results:
        for _ in results:
            read += 1
    logger.info("interrupted after %d results", read)


def by_interrupt_of_a_wait(client: TaskClient) -> None:
    """The main thread waits for a run in the background, and is interrupted."""
    global countdown
    countdown = Countdown(interrupt)
    with contextlib.suppress(KeyboardInterrupt), client.start(TASKS) as run:
        run.wait()
    assert run.summary.reason == "stopped", run.summary


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sqspipes")]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with pipe() as client:
        tasks = [{"method": counted(task.method), "workers": task.workers} for task in client.tasks[:3]]
        client.register_tasks([*tasks, {"name": "results"}])
        before = signal.getsignal(signal.SIGTERM)
        for way in settings["ways"]:
            globals()[way](client)
            for thread in ours():  # those that have given back what they held may take a moment to end
                thread.join(1)
            assert not ours(), ours()
            assert signal.getsignal(signal.SIGTERM) is before
            hidden = [level for level in client.status().levels if level.in_flight]
            assert not hidden, f"{way}: {hidden}"
            logger.info("left by %s", way)
