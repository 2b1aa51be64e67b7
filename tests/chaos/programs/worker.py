"""A process of the pipe one, two, three. Each call is written to the journal before anything else.

Settings (JSON): ``domain``, ``arguments`` of TaskClient, ``journal``; and perhaps ``tasks`` (those that run
here), ``workers`` (threads a task), ``levels`` (of each task), ``seconds`` (a call takes), ``slow`` (seconds that
number 0 of some groups takes), ``failing`` (each so many-th number's first call in task two raises), ``rejecting``
(each so many-th number is rejected by task three, and the number behind it by task one), ``options`` (more
arguments of TaskClient).
It logs ``runs on`` once it hears signals and ``Summary`` at its end, which is 0 after SIGTERM and SIGINT.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from sqspipes import Reject, TaskClient

settings = json.loads(sys.argv[1])
journal = os.open(settings["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
pause = threading.Event()
failed: set[tuple[str, int]] = set()


def noted(task: str, value: dict[str, Any]) -> dict[str, Any]:
    line = f"{task} {value['group']} {value['n']} {os.getpid()} {time.time():.3f}\n"
    os.write(journal, line.encode())
    slow = settings.get("slow", {}) if value["n"] == 0 else {}
    pause.wait(slow.get(value["group"], settings.get("seconds", 0.0)))
    return value


def rejected(value: dict[str, Any], rest: int) -> dict[str, Any]:
    if "rejecting" in settings and value["n"] % settings["rejecting"] == rest:
        raise Reject("not this one")
    return value


def one(value: dict[str, Any]) -> dict[str, Any]:
    return rejected(noted("one", value), 2)


def two(value: dict[str, Any]) -> dict[str, Any]:
    noted("two", value)
    key = (value["group"], value["n"])
    if "failing" in settings and value["n"] % settings["failing"] == 1 and key not in failed:
        failed.add(key)
        raise RuntimeError("the first call")
    failed.discard(key)
    return value


def three(value: dict[str, Any]) -> dict[str, Any]:
    return rejected(noted("three", value), 1)


def pipe() -> TaskClient:
    workers = settings.get("workers", 4)
    levels = settings.get("levels", 1)
    tasks: list[Any] = [
        {"method": task, "workers": workers, "priorities": levels} for task in (one, two, three)
    ]
    client = TaskClient(settings["domain"], **settings["arguments"], **settings.get("options", {}))
    return client.register_tasks([*tasks, {"name": "results"}])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt), pipe() as client:
        logging.getLogger("worker").info("%s", client.run(settings.get("tasks", ["one", "two", "three"])))
