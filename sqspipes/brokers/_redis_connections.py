"""Connections: those of one process to the server, and the way to end a wait on one at once."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections import deque
from typing import Any

from redis import exceptions
from redis.connection import Connection, SSLConnection

from sqspipes import clocks
from sqspipes.brokers._redis_scripts import Script
from sqspipes.brokers._redis_url import Place
from sqspipes.errors import BrokerClosedError, BrokerError

#: ZMSCORE, and timeouts of BLPOP that are no whole seconds. Valkey says 7.2.
OLDEST_SERVER = (6, 2)

#: Seconds to connect, and for an answer: more than the longest wait for the bell.
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0

#: Seconds after which an idle connection is looked at before it is used.
_TRUSTED = 1.0

#: redis-py 5 sends the password to whoever has any certificate at all unless it is told not to.
_VERIFIED = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}

#: Connections that are kept while nobody needs them.
_MOST_IDLE = 64


class Connections:
    """Connections of one process: a forked child makes its own. All methods are thread-safe.

    A connection is the caller's alone from its request to the answer. One whose request failed in any way is never
    used again: what comes next on it may be the late answer to somebody else's question.
    """

    def __init__(self, place: Place) -> None:
        self.process = os.getpid()
        #: Rises with each interrupt.
        self.interrupts = 0
        self._place = place
        self._idle: deque[tuple[float, Any]] = deque()
        # A signal's handler may interrupt the very thread that has it.
        self._lock = threading.RLock()
        self._waiting: set[Any] = set()
        self._closed = self._checked = False

    def request(self, *command: Any) -> Any:
        """Return the server's answer to a command."""
        connection = self._taken()
        try:
            answer = _answer(connection, command)
        except exceptions.ResponseError:
            self._give(connection)
            raise
        except exceptions.RedisError:
            self._drop_idle()
            raise
        self._give(connection)
        return answer

    def run(self, script: Script, *arguments: Any) -> Any:
        """Return a script's answer; the server is sent its text when it does not know it."""
        try:
            return self.request("EVALSHA", script.sha, 1, self._place.prefix, *arguments)
        except exceptions.NoScriptError:
            return self.request("EVAL", script.text, 1, self._place.prefix, *arguments)

    def listen(self, bell: str, seconds: float, interrupts: int) -> bool:
        """Wait for a ring; False after an interrupt later than those that the caller knows of.

        A ring that comes with the interrupt is heard: else nobody would, and its message would wait.
        """
        connection = self._taken()
        with self._lock:
            cut = self.interrupts != interrupts
            if not cut:
                self._waiting.add(connection)
        if cut:
            self._give(connection)
            return False
        rung, answered = False, False
        try:
            # Some servers wait for ever when less than a millisecond is asked for.
            rung = _answer(connection, ("BLPOP", bell, f"{max(seconds, 0.002):.3f}")) is not None
            answered = True
        except exceptions.RedisError:
            if self.interrupts == interrupts:
                self._drop_idle()
                raise
        finally:
            with self._lock:
                self._waiting.discard(connection)
                cut = self.interrupts != interrupts
            if cut or not answered:
                connection.disconnect()
            else:
                self._give(connection)
        return rung or not cut

    def interrupt(self) -> None:
        """End the waits that are under way."""
        with self._lock:
            self.interrupts += 1
            for connection in self._waiting:
                _shut(connection)

    def close(self) -> None:
        """Close what is idle now, and the rest when it is given back."""
        self._closed = True
        self.interrupt()
        self._drop_idle()

    def _taken(self) -> Any:
        """Return a connection that works, as far as can be known."""
        while True:
            if self._closed:
                raise BrokerClosedError(f"{self._place.url} was closed")
            try:
                since, connection = self._idle.pop()
            except IndexError:
                return self._connected()
            if clocks.monotonic() - since < _TRUSTED or _silent(connection):
                return connection
            connection.disconnect()

    def _give(self, connection: Any) -> None:
        if len(self._idle) >= _MOST_IDLE:
            connection.disconnect()
            return
        self._idle.append((clocks.monotonic(), connection))
        if self._closed:
            self._drop_idle()

    def _drop_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop()[1].disconnect()

    def _connected(self) -> Any:
        place = self._place
        kind: Any = SSLConnection if place.tls else Connection
        connection = kind(
            host=place.host,
            port=place.port,
            db=place.db,
            username=place.user,
            password=place.password,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            socket_keepalive=True,
            protocol=2,
            **({**_VERIFIED, **dict(place.files)} if place.tls else {}),
        )
        connection.connect()
        if not self._checked:
            self._check_version(connection)
            self._checked = True
        return connection

    def _check_version(self, connection: Any) -> None:
        try:
            text = _answer(connection, ("INFO", "server")).decode()
        except exceptions.NoPermissionError:
            return  # Whoever keeps that secret knows the version.
        found = re.search(r"redis_version:((\d+)\.(\d+)\S*)", text)
        if found and (int(found[2]), int(found[3])) < OLDEST_SERVER:
            connection.disconnect()
            raise BrokerError(f"{self._place.address} is Redis {found[1]}: 6.2 or newer is needed, or Valkey")


def _answer(connection: Any, command: tuple[Any, ...]) -> Any:
    """Send a command and read its answer; a failure closes the connection, an error as answer does not."""
    connection.send_command(*command)
    return connection.read_response()


def _silent(connection: Any) -> bool:
    """Say whether nothing came on an idle connection: neither its end nor what nobody asked for."""
    try:
        return not connection.can_read(timeout=0)
    except (exceptions.RedisError, OSError):
        return False


def _shut(connection: Any) -> None:
    sock = getattr(connection, "_sock", None)
    if isinstance(sock, socket.socket):
        # Below TLS: its own shutdown is not made for another thread's read.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
