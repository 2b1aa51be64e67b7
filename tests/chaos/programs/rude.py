"""Tasks that start threads, change the working directory and close stdout; what came of it goes to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from typing import Any

from sqspipes import TaskClient


def threads(value: int) -> int:
    """Leave threads behind: one that ends with an error, and one that never ends."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    broken = threading.Thread(target=sys.exit)
    broken.start()
    broken.join()
    return value


def directory(value: int) -> int:
    """Go elsewhere, to a place that is gone then."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    return value


def streams(value: int) -> int:
    """Close what others print to, and take away what they would be told."""
    sys.stdout.close()
    sys.stdin.close()
    os.umask(0o777)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return value


def last(value: int) -> int:
    """Take what came through."""
    return value


def run(client: TaskClient, values: range) -> tuple[list[Any], str]:
    """Put values and let them go through; return the results and how the run ended."""
    client.put_many(values)
    with client.run(iterate=True, drain=True) as results:
        return sorted(results), "drained"


def main() -> None:
    """Run two times: a task may leave what hurts only the next run."""
    with TaskClient("rude", broker="sqlite:///pipe.db") as client:
        client.register_tasks(
            [{"method": each, "workers": 3} for each in (threads, directory, streams, last)]
        )
        found, reason = run(client, range(30))
        again, _ = run(client, range(30, 60))
        dead = len(list(client.dead_letters()))
        said = {"results": found, "dead": dead, "reason": reason, "again": again}
        print(json.dumps(said), file=sys.stderr)


main()
