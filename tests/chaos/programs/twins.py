"""A process with two clients of one pipe, whose runs start, stop and hear signals side by side.

Settings are those of ``worker.py``, and ``rounds``. One run is stopped while the other goes on, in turns. Then the
main thread has the results of both, closes those that it opened first, and opens them again: ``both are read`` is
logged, and the process waits for a signal, which ends both.
"""

from __future__ import annotations

import logging
import threading

from worker import pipe, settings

from sqspipes import Results, TaskClient

logger = logging.getLogger("program")

TASKS = ["one", "two", "three"]


def done(client_run: object, count: int) -> bool:
    return client_run.summary.done >= count  # type: ignore[attr-defined]


def goes_on(run: object) -> None:
    """Wait until a run has done ten calls more."""
    pause, more = threading.Event(), run.summary.done + 10  # type: ignore[attr-defined]
    for _ in range(1200):
        if done(run, more):
            return
        pause.wait(0.05)
    raise AssertionError(f"no call in a minute: {run}")


def in_turns(clients: list[TaskClient]) -> None:
    """Stop each run while the other one goes on."""
    runs = [client.start(TASKS) for client in clients]
    for number in range(settings["rounds"]):
        place = number % 2
        goes_on(runs[place])
        clients[place].stop()
        assert runs[place].wait(60).reason == "stopped"
        goes_on(runs[1 - place])
        runs[place] = clients[place].start(TASKS)
        logger.info("one stopped, the other went on")
    for run in runs:
        run.stop()
        run.wait(60)


def read(results: Results, name: str) -> None:
    count = sum(1 for _ in results)
    logger.info("%s ended after %d results", name, count)


def under_signals(first: TaskClient, second: TaskClient) -> None:
    """Read the results of both in the main thread, in a way that crosses: closed in the order of opening."""
    ones = first.run(TASKS, iterate=True)
    others = second.run(TASKS, iterate=True)
    next(ones)
    next(others)
    ones.close()
    ones = first.run(TASKS, iterate=True)
    next(ones)
    logger.info("both are read")
    reader = threading.Thread(target=read, args=(ones, "one"))
    reader.start()
    read(others, "other")
    reader.join(60)
    assert not reader.is_alive(), "one goes on"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with pipe() as client, pipe() as other:
        in_turns([client, other])
        under_signals(client, other)
