"""A run in several processes: each call is told to the journal, and waits until its gate is open."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqspipes import RunError, Summary, TaskClient
from sqspipes.tasks.pipe import RunOptions

settings = json.loads(sys.argv[1])
folder = Path(settings["folder"])
logging.basicConfig(level=logging.INFO, format="%(message)s")


def note(*words: Any) -> None:
    with (folder / "journal").open("a") as journal:
        journal.write(" ".join(map(str, [*words, os.getpid()])) + "\n")


def tick() -> int:
    note("tick", 0)
    return os.getpid()


def work(value: Any) -> Any:
    note("work", value)
    if value == "bad":
        raise ValueError("no luck")
    while not (folder / "gate").exists() and not (folder / f"gate-{os.getpid()}").exists():
        threading.Event().wait(0.02)
    if settings.get("shown"):
        print(f"printed {value}\n", end="", flush=True)  # by one write: other processes print there, too
    return value


def last(value: Any) -> None:
    note("last", value)


TASKS: dict[str, Any] = {
    "tick": {"method": tick, "interval": 0.05},
    "work": {"method": work, "on_error": settings.get("on_error", "retry")},
    "last": last,
}

client = TaskClient(settings["domain"], **settings["arguments"], lease=5.0)
client.register_tasks([TASKS[name] for name in settings["tasks"]])


def show(lines: Sequence[str]) -> None:
    with (folder / "shown").open("a") as shown:
        shown.writelines(f"{line}\n" for line in lines)


def watched() -> Summary:
    """Run as below a live view: what is printed is shown, and the counts are read all the time."""
    asked = RunOptions(None, None, 0, False, None, None, None, settings.get("drain", False))
    fleet = client._fleet(2, asked, show).start()
    while not fleet.join(0.05):
        (folder / "counts").write_text(json.dumps({task: each.done for task, each in fleet.by_task.items()}))
    summary = fleet.wait()
    print({task: each.done for task, each in fleet.by_task.items()})
    return summary


def run() -> None:
    try:
        drain = settings.get("drain", False)
        summary = watched() if settings.get("shown") else client.run(processes=2, drain=drain)
        print(summary.reason, summary.done)
    except KeyboardInterrupt:
        print("KeyboardInterrupt")
    except RunError as error:
        print(error, error.part, error.__cause__, sep="\n")


if __name__ != "__main__" and settings.get("dies"):
    os._exit(3)

if __name__ == "__main__" or settings.get("unguarded"):
    run()
