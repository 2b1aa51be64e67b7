"""Prints the modules of which a function runs between a put and the end of the message's acknowledgement, in order.

Brokers are left out, and so is what runs before the message: the making of queues, and a run that waits.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import sqspipes
from sqspipes import TaskClient

ROOT = f"{Path(sqspipes.__file__).parent}/"

found: dict[str, None] = {}
is_watched = threading.Event()


def watch(frame: FrameType, event: str, _: Any) -> None:
    """Note the module of each function that is called."""
    file = frame.f_code.co_filename
    if event == "call" and is_watched.is_set() and file.startswith(ROOT):
        module = file.removeprefix(ROOT)
        if not module.startswith("brokers/"):
            found[module] = None


def double(value: int) -> int:
    return 2 * value


done = threading.Semaphore(0)


def last(value: int) -> None:
    done.release()


def pass_one() -> None:
    """Put a message, and wait until both tasks have acknowledged theirs."""
    client.put(1)
    assert done.acquire(timeout=30)
    while any(broker.depth(queue).in_flight for queue in client.queue_names):
        pass


threading.setprofile(watch)
sys.setprofile(watch)
broker = sqspipes.open_broker("memory://")
tasks = [{"method": double, "workers": 4}, {"method": last, "workers": 4}]
with TaskClient("way", broker=broker, control_interval=None).register_tasks(tasks) as client, client.start():
    pass_one()  # by then all that begins with a run has begun
    is_watched.set()
    pass_one()
    is_watched.clear()
print(*found, sep="\n")
