"""A process of the pipe that looks at its own ``status``; it stops as ``run`` does, and ends with 0.

Settings are those of ``worker.py``, and ``watched``: task two's oldest call is logged once it is older than this.
"""

from __future__ import annotations

import contextlib
import logging
import threading

from worker import pipe, settings

from sqspipes import TaskClient


def watch(client: TaskClient) -> None:
    """Log what ``status`` tells of a call that runs for long."""
    pause, oldest = threading.Event(), 0.0
    while oldest < settings["watched"]:
        pause.wait(0.2)
        oldest = max(level.oldest_call or 0.0 for level in client.status().levels if level.task == "two")
    logging.getLogger("watched").info("status: two runs for %.1f s", oldest)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt), pipe() as client:
        threading.Thread(target=watch, args=(client,), daemon=True).start()
        client.run(settings["tasks"])
