"""A loop that restarts a process of the pipe one, two, three whenever it ends; one message segfaults it in one.

Settings (JSON) besides those of ``worker.py``: ``killer``, the group and number of that message; ``lasting``,
seconds that the other calls of one take. Leases may be shorter than users may choose. SIGINT kills the process
and ends the loop, with 0.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import threading
from types import FrameType
from typing import Any

import worker

from sqspipes import TaskClient, defaults

logger = logging.getLogger("killing")
settings = worker.settings


def one(value: dict[str, Any]) -> dict[str, Any]:
    worker.noted("one", value)
    if [value["group"], value["n"]] == settings["killer"]:
        ctypes.string_at(0)
    worker.pause.wait(settings["lasting"])
    return value


def pipe() -> TaskClient:
    workers = settings.get("workers", 4)
    tasks: list[Any] = [{"method": method, "workers": workers} for method in (one, worker.two, worker.three)]
    client = TaskClient(settings["domain"], **settings["arguments"], **settings.get("options", {}))
    return client.register_tasks([*tasks, {"name": "results"}])


def run_once(parent: int) -> None:
    """Be the process, until its message kills it or its loop has ended."""
    threading.Thread(target=lambda: (os.read(parent, 1), os._exit(1)), daemon=True).start()
    with pipe() as client, client.start(["one", "two", "three"]) as run:
        run.wait()


class Loop:
    """Starts a process after the other; an interrupt kills the last one and ends the loop."""

    def __init__(self) -> None:
        self.process = 0
        self.ended = False
        self.parent, self.mine = os.pipe()
        signal.signal(signal.SIGINT, self.interrupt)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        self.ended = True
        if self.process:
            os.kill(self.process, signal.SIGKILL)

    def run(self) -> None:
        while not self.ended:
            # An interrupt comes before the fork, or when the process is known.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            self.process = os.fork()
            if self.process == 0:
                os.close(self.mine)
                run_once(self.parent)
                os._exit(0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            _, status = os.waitpid(self.process, 0)
            self.process = 0
            logger.info("the process ended with %d", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    defaults.SHORTEST_LEASE = 1.0
    Loop().run()
