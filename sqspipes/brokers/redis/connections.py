"""Connections: those of one process to the server, and the way to end a wait on one at once."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
from collections import deque
from typing import Any

from redis import exceptions
from redis.connection import Connection, SSLConnection

from sqspipes.brokers.redis.errors import WrongFileError, refuses_writes
from sqspipes.brokers.redis.scripts import Script
from sqspipes.brokers.redis.url import RedisPlace
from sqspipes.errors import BrokerClosedError, BrokerError
from sqspipes.support import clocks, lines

_logger = lines.logger(__name__)

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

    def __init__(self, place: RedisPlace) -> None:
        self.process = os.getpid()
        #: Rises with each interrupt.
        self.interrupts = 0
        self._place = place
        self._idle: deque[tuple[float, Any]] = deque()
        # A signal's handler may interrupt the very thread that has it.
        self._lock = threading.RLock()
        self._waiting: set[Any] = set()
        self._closed = False
        #: Whether the server was reached, and is one that will do.
        self.known = False
        #: What the server does when it is full, as far as it tells.
        self.policy = ""
        self._refusing = False

    def request(self, *command: Any) -> Any:
        """Return the server's answer to a command."""
        connection = self._taken()
        try:
            if self._refusing:
                # It answers questions all the same: a pipe that believed them would find it back again and again.
                _answer(connection, ("DEL", f"{self._place.prefix}:probe"))
                self._refusing = False
            answer = _answer(connection, command)
        except exceptions.ResponseError as error:
            if refuses_writes(error):
                # The name may lead to another server by now.
                self._refusing = True
                connection.disconnect()
                self._drop_idle()
            else:
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
        except exceptions.RedisError as error:
            self._refusing = self._refusing or refuses_writes(error)
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
        if place.tls:
            _check_files(place)
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
        if not self.known:
            try:
                self._check_server(connection)
            except BaseException:
                connection.disconnect()
                raise
            self.known = True
        return connection

    def _check_server(self, connection: Any) -> None:
        """Refuse a server that will not do, and warn of one that drops messages."""
        try:
            text = _answer(connection, ("INFO",)).decode()
        except exceptions.NoPermissionError:
            return  # Whoever keeps that secret knows the version.
        told: dict[str, str] = dict(re.findall(r"^(\w+):(\S+)", text, re.MULTILINE))
        address = self._place.address
        if told.get("redis_mode") == "sentinel":
            raise BrokerError(
                f"{address} is a Sentinel, which is not supported: give the address of the primary"
            )
        version = told.get("redis_version", "")
        found = re.match(r"(\d+)\.(\d+)", version)
        if found and (int(found[1]), int(found[2])) < OLDEST_SERVER:
            raise BrokerError(f"{address} is Redis {version}: 6.2 or newer is needed, or Valkey")
        self.policy = told.get("maxmemory_policy", "")
        if self.evicts:
            _logger.warning("%s drops messages when it is full: %s", address, self.evicts)

    @property
    def evicts(self) -> str:
        """How the server drops keys, in a sentence; nothing if it does not."""
        if self.policy in ("", "noeviction"):
            return ""
        return f"its maxmemory-policy is {self.policy}, it has to be noeviction"


def _check_files(place: RedisPlace) -> None:
    """Name the file that is wrong, which the error of a connection does not."""
    files = dict(place.files)
    authorities, certificate = files.get("ssl_ca_certs"), files.get("ssl_certfile")
    named, context = "ssl_ca_certs", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if authorities is not None:
            context.load_verify_locations(authorities)
        if certificate is not None:
            named = " and ".join(name for name in ("ssl_certfile", "ssl_keyfile") if name in files)
            # Without a password Python would ask for one at the terminal.
            context.load_cert_chain(certificate, files.get("ssl_keyfile"), password="")
    except OSError as error:
        what = ", ".join(f"{name} {files[name]!r}" for name in named.split(" and "))
        raise WrongFileError(f"{what} cannot be used: {error.strerror or error}") from error


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
