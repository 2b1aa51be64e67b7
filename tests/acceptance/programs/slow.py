"""A task of one second a call, which writes the end of each call to the journal."""

from __future__ import annotations

import json
import os
import sys
import threading

from sqspipes import TaskClient

settings = json.loads(sys.argv[1])
journal = os.open(settings["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
pause = threading.Event()


def slow(value: int) -> None:
    os.write(journal, f"begun {value}\n".encode())
    pause.wait(1.0)
    os.write(journal, f"ended {value}\n".encode())


if __name__ == "__main__":
    client = TaskClient(settings["domain"], **settings["arguments"]).register_tasks(
        [{"method": slow, "workers": 10}]
    )
    print(client.run())
