"""A relay before a server that speaks any protocol over TCP: it can lose answers, and speak TLS to clients."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading


class Relay:
    """Passes bytes on between clients and a port of 127.0.0.1, from a port of its own.

    ``lose_answer()`` cuts the connection on which the server answers next, instead of passing the answer on.
    """

    def __init__(self, upstream: int, tls: ssl.SSLContext | None = None) -> None:
        self._upstream = upstream
        self._tls = tls
        self._lock = threading.Lock()
        self._losing = False
        self._sockets: list[socket.socket] = []
        #: Set once an answer was lost.
        self.lost = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answer(self) -> None:
        """Lose the server's next answer."""
        with self._lock:
            self._losing = True

    def close(self) -> None:
        """Stop listening and cut every connection."""
        self._cut(self._listener)
        with self._lock:
            sockets = list(self._sockets)
        self._cut(*sockets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection(("127.0.0.1", self._upstream))
            with self._lock:
                self._sockets += (client, server)
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
            self._pass(server, client, answers=True)

    def _pass(self, source: socket.socket, target: socket.socket, *, answers: bool = False) -> None:
        """Pass bytes on until one side ends."""
        with contextlib.suppress(OSError):
            while passed := source.recv(65536):
                if answers and self._loses():
                    self.lost.set()
                    break
                target.sendall(passed)
        self._cut(source, target)

    def _loses(self) -> bool:
        with self._lock:
            losing, self._losing = self._losing, False
            return losing

    def _cut(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                # Below TLS: the other thread is in the middle of a read.
                socket.socket.shutdown(each, socket.SHUT_RDWR)
            each.close()
