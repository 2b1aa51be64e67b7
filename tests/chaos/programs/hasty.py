"""A process of the pipe one, two, three whose calls fail again and again and are repeated at once.

Task one is async, two takes batches that fail in part, three raises ``Retry(0)``. Which calls fail is a function of
the number and of how often it failed here. Settings are those of ``worker.py``; ``fails``: how often each does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from typing import Any

from worker import noted, settings

from sqspipes import BatchFailure, Retry, TaskClient

failed: Counter[tuple[str, str, int]] = Counter()
lock = threading.Lock()


def fails(task: str, value: dict[str, Any]) -> bool:
    """Say whether this call is to fail."""
    key = (task, value["group"], value["n"])
    with lock:
        failed[key] += 1
        return value["n"] % 2 == 0 and failed[key] <= settings["fails"]


async def one(value: dict[str, Any]) -> dict[str, Any]:
    noted("one", value)
    await asyncio.sleep(0)
    if fails("one", value):
        raise Retry(0)
    return value


def two(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for value in values:
        noted("two", value)
    errors = {place: Retry(0) for place, value in enumerate(values) if fails("two", value)}
    if errors:
        raise BatchFailure(errors, results=values)
    return values


def three(value: dict[str, Any]) -> dict[str, Any]:
    noted("three", value)
    if fails("three", value):
        raise RuntimeError("again at once")
    return value


def pipe() -> TaskClient:
    client = TaskClient(settings["domain"], **settings["arguments"], **settings["options"])
    return client.register_tasks(
        [
            {"method": one, "workers": 20},
            {"method": two, "workers": 4, "batch": 20, "batch_wait": 0.05},
            {"method": three, "workers": 8},
            {"name": "results"},
        ]
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt), pipe() as client:
        client.run(["one", "two", "three"])
