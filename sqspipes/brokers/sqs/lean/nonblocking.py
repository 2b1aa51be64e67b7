"""Nonblocking: HTTP exchanges over sockets that never block, as states that a loop carries on."""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import SplitResult

from sqspipes.brokers.exchange import ExchangeLoop
from sqspipes.brokers.sqs.lean.http import LONGEST_ANSWER
from sqspipes.brokers.sqs.lean.peeking import is_readable
from sqspipes.brokers.sqs.lean.pool import MOST_IDLE
from sqspipes.brokers.sqs.lean.reply import Answered, BrokenAnswerError, Reading, Reply, at_once, reading
from sqspipes.support.workers import Workers

#: Bytes asked of a socket at once: most answers come in one piece.
_PIECE = 262_144

#: Seconds after which a connection that ends without an answer was not an idle one that the server closed.
STALE_SECONDS = 2.0

#: Seconds between two looks whether an exchange takes too long.
_SWEEP_SECONDS = 0.5

_READ, _BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE

#: A socket that has nothing at the moment.
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

#: Is told of an answer; or of an error: ``TimeoutError``, ``ssl.SSLError``, ``OSError``, ``BrokenAnswerError``.
HttpDone: TypeAlias = Callable[[Reply | Exception], object]

#: The addresses of a server, as ``getaddrinfo`` has them.
Addresses: TypeAlias = list[tuple[Any, ...]]


class ConnectError(Exception):
    """No connection could be made; the cause says why."""


class HttpExchange:
    """One request and its answer. It may move to a new connection while the old one was found to be stale."""

    __slots__ = ("connection", "done", "is_cut", "is_over", "may_be_stale", "request", "since", "timeout")

    def __init__(self, request: bytes, timeout: float, done: HttpDone) -> None:
        self.request = request
        self.timeout = timeout
        self.done = done
        self.connection: SocketConnection | None = None
        self.may_be_stale = False  #: it went over a connection that had been idle
        self.since = 0.0  #: when that was, on the loop's clock
        self.is_cut = False
        self.is_over = False

    def cut(self) -> None:
        """End the exchange: its connection is closed, and ``done`` is told of a broken answer."""
        self.is_cut = True
        if self.connection is not None:
            self.connection.fail(BrokenAnswerError("cut", begun=True))
        else:
            self.end(BrokenAnswerError("cut", begun=True))

    def end(self, came: Reply | Exception) -> None:
        """Tell what came, once."""
        if not self.is_over:
            self.is_over = True
            self.done(came)


class HttpClient:
    """Exchanges with one server, as many at once as there are requests; all in the loop's turn.

    ``lookups`` looks up the addresses of the server: that blocks.
    """

    def __init__(
        self,
        server: SplitResult,
        tls: ssl.SSLContext | None,
        loop: ExchangeLoop,
        lookups: Workers,
        *,
        connect_timeout: float,
        most_idle: int,
    ) -> None:
        self.loop = loop
        self.tls = tls
        self.host = server.hostname or ""
        self._port = server.port or (80 if tls is None else 443)
        self._lookups = lookups
        self._looking: dict[HttpExchange, float] = {}  # what waits for the server's addresses, and until when
        self.connect_timeout = connect_timeout
        self._most_idle = most_idle
        self._idle: deque[SocketConnection] = deque()
        self._open: set[SocketConnection] = set()
        self._is_sweeping = False
        self._is_closed = False

    def exchange(self, request: bytes, timeout: float, done: HttpDone) -> HttpExchange:
        """Send a request; ``timeout`` is the longest silence, in seconds."""
        exchange = HttpExchange(request, timeout, done)
        connection = self._taken()
        if connection is not None:
            exchange.may_be_stale, exchange.since = True, self.loop.now()
            connection.start(exchange)
        else:
            self._connect(exchange)
        return exchange

    def close(self) -> None:
        """Close all connections; what is under way is told of a broken answer, in the next turn."""
        self._is_closed = True
        under_way = [connection.exchange for connection in self._open] + list(self._looking)
        for connection in tuple(self._open):
            connection.close()
        for exchange in under_way:
            if exchange is not None:
                self._end_closed(exchange)

    def _taken(self) -> SocketConnection | None:
        """Return the idle connection that was used last, unless it was closed or has bytes that nobody asked for.

        A connection that answered in this very turn is not looked at: all that had come there was read just now.
        """
        now, turn = self.loop.now(), self.loop.turns
        while self._idle:
            connection = self._idle.pop()
            is_young = now - connection.idle_since < MOST_IDLE
            if is_young and (connection.idle_turn == turn or not connection.is_dropped):
                return connection
            connection.close()
        return None

    def _connect(self, exchange: HttpExchange) -> None:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            self._looking[exchange] = self.loop.now() + self.connect_timeout
            self.sweep_soon()
            self._lookups.submit(self._look_up, exchange)
        else:
            self.loop.tell(partial(self._found, exchange, self._addresses()))

    def _look_up(self, exchange: HttpExchange) -> None:
        """Look the server's addresses up; in a thread of ``lookups``."""
        found: Addresses | Exception
        try:
            found = self._addresses()
        except (OSError, UnicodeError) as error:
            found = _not_connected(error)
        self.loop.tell(partial(self._found, exchange, found))

    def _addresses(self) -> Addresses:
        return socket.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)

    def _found(self, exchange: HttpExchange, found: Addresses | Exception) -> None:
        self._looking.pop(exchange, None)
        if exchange.is_over:  # it was cut, or its time was over
            return
        if self._is_closed:
            self._end_closed(exchange)
            return
        if isinstance(found, Exception):
            exchange.end(found)
            return
        connection = SocketConnection(self, found)
        self._open.add(connection)
        connection.start(exchange)

    def _end_closed(self, exchange: HttpExchange) -> None:
        """Tell in the next turn that there will be no answer."""
        self.loop.tell(partial(exchange.end, BrokenAnswerError("closed", begun=True)))

    # What connections tell

    def ended(self, connection: SocketConnection, exchange: HttpExchange, came: Reply | Exception) -> None:
        """Take note of an exchange that is over; one that met a stale connection goes over a new one."""
        is_broken = isinstance(came, BrokenAnswerError) and not came.begun
        is_stale = is_broken and exchange.may_be_stale and self.loop.now() - exchange.since <= STALE_SECONDS
        exchange.connection = None
        if is_stale:
            exchange.may_be_stale = False
            self._connect(exchange)
            return
        exchange.end(came)

    def keep(self, connection: SocketConnection) -> None:
        """Keep a connection for the next request, or close it."""
        connection.idle_since = now = self.loop.now()
        connection.idle_turn = self.loop.turns
        if self._is_closed or len(self._idle) >= self._most_idle:
            connection.close()
            return
        self._idle.append(connection)
        while self._idle and now - self._idle[0].idle_since >= MOST_IDLE:
            self._idle.popleft().close()

    def gone(self, connection: SocketConnection) -> None:
        """Forget a connection that was closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep_soon(self) -> None:
        """Have exchanges looked at that may take too long."""
        if not self._is_sweeping:
            self._is_sweeping = True
            self.loop.later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = self.loop.now()
        self._is_sweeping = False
        busy = [connection for connection in self._open if connection.exchange is not None]
        late = [exchange for exchange, deadline in self._looking.items() if deadline <= now]
        if busy or self._looking:
            self.sweep_soon()
        for exchange in late:
            del self._looking[exchange]
            exchange.end(_not_connected(TimeoutError("the server's name was not looked up in time")))
        for connection in busy:
            if connection.deadline <= now:
                connection.overdue()


class SocketConnection:
    """A socket to a server, for one exchange at a time.

    It connects, over TLS shakes hands, sends, and reads: ``_carry_on`` is what is done next when the socket is ready.
    """

    __slots__ = (
        "_addresses", "_begun", "_carry_on", "_client", "_events", "_out", "_reading", "_sent_all", "_sock",
        "deadline", "exchange", "idle_since", "idle_turn",
    )  # fmt: skip

    def __init__(self, client: HttpClient, addresses: Addresses) -> None:
        self._client = client
        self._addresses = addresses
        self._sock: socket.socket | None = None
        self._events = 0  # that the loop watches for
        self._carry_on: Callable[[], None] = self._next_address
        self._out: memoryview | bytes = b""
        self._sent_all = True
        self._reading: Reading | None = None
        self._begun = False
        self.deadline = 0.0  #: when the exchange is overdue, on the loop's clock
        self.exchange: HttpExchange | None = None
        self.idle_since, self.idle_turn = 0.0, -1

    def start(self, exchange: HttpExchange) -> None:
        """Make an exchange."""
        self.exchange, exchange.connection = exchange, self
        self._out, self._begun, self._sent_all = exchange.request, False, True
        self._reading = None
        self._client.sweep_soon()
        if self._sock is None:
            self._next_address()
        else:
            self._begin_to_send()

    @property
    def is_dropped(self) -> bool:
        """Whether an idle connection was closed by the server, or has bytes that nobody asked for."""
        sock = self._sock
        if sock is None:
            return True
        try:
            has_read = isinstance(sock, ssl.SSLSocket) and sock.pending()
            return bool(has_read) or is_readable(sock)
        except (OSError, ValueError):
            return True

    def fail(self, error: Exception) -> None:
        """End the exchange with an error; the connection is good for nothing then."""
        self.close()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._client.ended(self, exchange, error)

    def overdue(self) -> None:
        """End what takes too long."""
        if self._carry_on in (self._connecting, self._shaking):
            self._failed_to_connect(TimeoutError("no connection in time"))
        else:
            self.fail(TimeoutError("no answer in time"))

    def close(self) -> None:
        """Close the socket; closing twice is no error."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._unwatch(sock)
            sock.close()
        self._client.gone(self)

    # Connecting

    def _next_address(self) -> None:
        family, kind, protocol, _, address = self._addresses.pop(0)
        self.deadline = self._client.loop.now() + self._client.connect_timeout
        self._carry_on = self._connecting
        try:
            self._sock = sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            code = sock.connect_ex(address)
        except OSError as error:
            self._failed_to_connect(error)
            return
        if code in (0, errno.EISCONN):
            self._connected()
        elif code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
            self._watch(_BOTH)
        else:
            self._failed_to_connect(OSError(code, os.strerror(code)))

    def _connecting(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed_to_connect(OSError(code, os.strerror(code)))
            return
        try:
            self._sock.getpeername()
        except OSError:
            return  # not yet
        self._connected()

    def _connected(self) -> None:
        client, sock = self._client, self._sock
        assert sock is not None
        if client.tls is None:
            self._begin_to_send()
            return
        self._unwatch(sock)
        try:
            self._sock = client.tls.wrap_socket(
                sock, server_hostname=client.host, do_handshake_on_connect=False
            )
        except (OSError, ValueError) as error:
            self._failed_to_connect(error)
            return
        self._carry_on = self._shaking
        self._shaking()

    def _shaking(self) -> None:
        sock = self._sock
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(_READ)
        except ssl.SSLWantWriteError:
            self._watch(_BOTH)
        except (OSError, ValueError) as error:
            self._failed_to_connect(error)
        else:
            self._begin_to_send()

    def _failed_to_connect(self, cause: Exception) -> None:
        """Try the next address; after the last one the exchange has failed."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._unwatch(sock)
            sock.close()
        if self._addresses and not isinstance(cause, ssl.SSLError):
            self._next_address()
            return
        self.fail(_not_connected(cause))

    # One exchange

    def _begin_to_send(self) -> None:
        assert self.exchange is not None
        self.deadline = self._client.loop.now() + self.exchange.timeout
        self._carry_on = self._sending
        self._sending()

    def _sending(self) -> None:
        sock = self._sock
        assert sock is not None
        try:
            while self._out:
                sent = sock.send(self._out)
                self._out = b"" if sent == len(self._out) else memoryview(self._out)[sent:]
        except BrokenPipeError:
            self._sent_all = False  # a server may refuse a request before it has read it
        except _LATER:
            self._watch(_BOTH)
            # An answer may come before all was sent.
            self._read()
            return
        except (OSError, ValueError) as error:
            self.fail(BrokenAnswerError(str(error) or "not sent", begun=self._begun))
            return
        self._carry_on = self._read
        self._watch(_READ)

    def _read(self) -> None:
        sock = self._sock
        if sock is None:
            return
        while True:
            try:
                piece = sock.recv(_PIECE)
            except _LATER:
                return
            except (OSError, ValueError) as error:
                self.fail(BrokenAnswerError(str(error), begun=self._begun))
                return
            self._take(piece)
            # What TLS has read already is not in the kernel any more: no event tells of it.
            if not (isinstance(sock, ssl.SSLSocket) and self.exchange is not None and sock.pending()):
                return

    def _take(self, piece: bytes) -> None:
        if self.exchange is None:
            self.close()  # of an idle connection: it was closed, or has bytes that nobody asked for
            return
        if piece and not self._begun:
            self._begun = True
            self.deadline = self._client.loop.now() + LONGEST_ANSWER
        if self._reading is None:
            if (answered := at_once(piece)) is not None:
                self._answered(answered)
                return
            self._reading = reading()
            next(self._reading)
        try:
            self._reading.send(piece)
        except StopIteration as end:
            self._answered(end.value)
        except BrokenAnswerError as error:
            self.fail(error)

    def _answered(self, answered: Answered) -> None:
        exchange, self.exchange, self._reading = self.exchange, None, None
        assert exchange is not None
        if answered.keeps and self._sent_all and not self._out:
            self._client.keep(self)
        else:
            self.close()
        self._client.ended(self, exchange, answered.reply)

    def _watch(self, events: int) -> None:
        if self._sock is not None and events != self._events:
            self._client.loop.watch(self._sock, events, self._ready)
            self._events = events

    def _unwatch(self, sock: socket.socket) -> None:
        if self._events:
            self._client.loop.unwatch(sock)
            self._events = 0

    def _ready(self) -> None:
        if self.exchange is None:
            self._read()
        else:
            self._carry_on()


def _not_connected(cause: Exception) -> ConnectError:
    error = ConnectError(str(cause))
    error.__cause__ = cause
    return error
