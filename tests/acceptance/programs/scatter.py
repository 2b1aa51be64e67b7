"""A generator over a set, whose order differs from process to process, that hangs after two outputs if told to."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator

from sqspipes import TaskClient

settings = json.loads(sys.argv[1])
journal = os.open(settings["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def scatter(words: list[str]) -> Iterator[str]:
    yield from words[:2]  # two equal outputs, which are two messages
    for count, word in enumerate(set(words)):
        if count == 2 and settings["hang"]:
            os.write(journal, b"scatter hangs\n")
            threading.Event().wait()
        yield word


def gather(word: str) -> None:
    os.write(journal, f"gather {word}\n".encode())


client = TaskClient(settings["domain"], **settings["arguments"], lease=5.0).register_tasks([scatter, gather])

if __name__ == "__main__":
    print(client.run("scatter" if settings["hang"] else None, drain=settings["drain"]))
