"""A pipe of three tasks, each of which writes its calls to the journal before anything else."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from sqspipes import TaskClient

settings = json.loads(sys.argv[1])
journal = os.open(settings["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(task: str, value: Any) -> Any:
    os.write(journal, f"{task} {value}\n".encode())
    return value


def first(value: int) -> int:
    return int(note("first", value))


def second(value: int) -> int:
    return int(note("second", value))


def third(value: int) -> int:
    return int(note("third", value))


client = TaskClient(settings["domain"], **settings["arguments"], lease=5.0).register_tasks(
    [{"method": task, "workers": 8} for task in (first, second, third)]
)

if __name__ == "__main__":
    print(client.run(settings.get("task"), drain=settings["drain"]))
