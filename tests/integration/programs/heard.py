"""A run of two processes whose around function and listener write to a file. Arguments: domain, URL, file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from sqspipes import TaskClient
from sqspipes.events import Called, Event

DOMAIN, URL, FILE = sys.argv[1:]


def write(what: str) -> None:
    """Add a line to the file, in one write."""
    with open(FILE, "ab", buffering=0) as file:
        file.write(f"{what} {os.getpid()}\n".encode())


def stand_around(call_next: Callable[[], Any], message: Any) -> Any:
    """Note that a call begins."""
    write("around")
    return call_next()


def listen(event: Event) -> None:
    """Note each call."""
    if isinstance(event, Called):
        write("called")


def work(value: int) -> None:
    """Do nothing."""


if __name__ == "__main__":
    client = TaskClient(DOMAIN, broker=URL, around=stand_around, listeners=listen).register_tasks([work])
    client.put_many(range(20))
    print(client.run(drain=True, processes=2).done)
