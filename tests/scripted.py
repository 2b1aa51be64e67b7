"""A server that answers each connection with the bytes a test wrote down for it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

#: What becomes of one request: send what there is to send; the connection ends when its script does.
Step = Callable[[socket.socket], None]


def answer(*pieces: bytes) -> Step:
    """Send an answer, piece by piece."""

    def step(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return step


def reply(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> Step:
    """Send a whole answer that keeps the connection."""
    lines = "".join(f"{line}\r\n" for line in headers)
    return answer(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body)


def cut(connection: socket.socket) -> None:
    """Close the connection instead of an answer."""
    connection.shutdown(socket.SHUT_RDWR)


class Scripted:
    """Listens on 127.0.0.1; ``scripts`` has the steps of each connection, in the order in which they come."""

    def __init__(self, *scripts: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        #: One connection more has ended, once for each.
        self.ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, args=(scripts,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and wait for the last connection's end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self, scripts: Sequence[Sequence[Step]]) -> None:
        threads = []
        with contextlib.suppress(OSError):
            for script in scripts:
                connection, _ = self._listener.accept()
                self.connections += 1
                threads.append(threading.Thread(target=self._play, args=(connection, script), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _play(self, plain: socket.socket, script: Sequence[Step]) -> None:
        with contextlib.suppress(OSError), plain:
            plain.settimeout(10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._tls.wrap_socket(plain, server_side=True) if self._tls else plain as connection:
                for step in script:
                    self.requests.append(_request(connection))
                    step(connection)
        self.ended.release()


class Answering:
    """Listens on 127.0.0.1; ``steps`` has what becomes of each request, by its action.

    ``GetQueueUrl`` has its answer where there is no step for it, and ``GetQueueAttributes`` an empty one.
    """

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        #: The requests so far, by action: their parameters.
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _play(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                head, _, body = _request(connection).partition(b"\r\n\r\n")
                action = next(x for x in head.decode().split("\r\n") if "AmazonSQS." in x).rpartition(".")[2]
                params = json.loads(body)
                self.asked.append((action, params))
                step = self.steps.get(action) or self._usual(action, params)
                step(connection)

    def _usual(self, action: str, params: dict[str, Any]) -> Step:
        if action == "GetQueueAttributes":
            return reply(b'{"Attributes": {}}')
        return reply(json.dumps({"QueueUrl": f"{self.url}/0/{params['QueueName']}"}).encode())


def _request(connection: socket.socket) -> bytes:
    """Read one request; OSError when the client has gone."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(connection)
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(body) < length:
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    piece = connection.recv(65_536)
    if not piece:
        raise OSError("the client has gone")
    return piece
