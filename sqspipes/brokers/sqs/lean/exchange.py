"""Lean: the calls that carry and count messages, over sockets of our own and at a tenth of botocore's CPU time.

What goes out is what botocore would send, and what comes back is what it would return or raise.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from botocore.awsrequest import HeadersDict
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.parsers import ResponseParserError, create_parser
from urllib3.exceptions import ProtocolError

from sqspipes.brokers.sqs.lean.failures import not_answered, not_connected
from sqspipes.brokers.sqs.lean.http import Connection, connected
from sqspipes.brokers.sqs.lean.pool import Pool
from sqspipes.brokers.sqs.lean.reply import BrokenAnswerError, Reply
from sqspipes.brokers.sqs.lean.wire import ACTIONS, Wire
from sqspipes.brokers.sqs.transport.answers import check_error, result_of
from sqspipes.brokers.sqs.transport.clock import ServerClock
from sqspipes.brokers.sqs.transport.polls import Poll
from sqspipes.support import clocks, compact_json, lines

#: Seconds after which a connection that ends without an answer was not an idle one that the server closed.
_STALE = 2.0

_logger = lines.logger(__name__)


class Lean:
    """Sends these calls to the server of one boto3 client, in one process."""

    def __init__(
        self,
        wire: Wire,
        client: Any,
        credentials: Any,
        clock: ServerClock,
        *,
        connections: int,
        connect: float,
    ) -> None:
        self.wire = wire
        self._model = client.meta.service_model
        self._errors = client.exceptions
        self.credentials = credentials
        self._connect_timeout = connect
        self._pool = Pool(connections)
        self._warned = os.name != "posix"
        self._actions = {action: (wire.head(action), wire.signer(action)) for action in ACTIONS}
        self._parser: Any = create_parser("json")
        self.clock = clock

    def call(
        self, action: str, params: Mapping[str, Any], timeout: float, poll: Poll | None = None
    ) -> dict[str, Any]:
        """Return what SQS answers, or raise what botocore would; with ``poll`` an interrupt ends it."""
        ahead = self.clock.ahead
        try:
            return self.result(action, params, self._exchange(self.request(action, params), timeout, poll))
        except ClientError as error:
            if not self.clock.corrected(error, ahead):
                raise
        return self.result(action, params, self._exchange(self.request(action, params), timeout, poll))

    def request(self, action: str, params: Mapping[str, Any], keys: Any = None) -> bytes:
        """Return a request signed with ``keys``, or with those of now: that waits if they have to be renewed."""
        body = compact_json.encode_known(params).encode("ascii")
        head, signer = self._actions[action]
        if keys is None:
            keys = self.credentials.get_frozen_credentials()
        signed = signer.signed(keys, body, self.clock.now())
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, signed.encode(), len(body), body)

    def result(self, action: str, params: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        """Return what is in an answer, or raise what botocore would."""
        if reply.status < 300:
            return result_of(action, params, reply.status, reply.body)
        raise self._error(action, reply)

    def close(self) -> None:
        """Close the connections that are idle, and the others when they have their answers."""
        self._pool.close()

    def _exchange(self, request: bytes, timeout: float, poll: Poll | None) -> Reply:
        connection = self._pool.take()
        if connection is not None:
            sent = clocks.monotonic()
            try:
                return self._over(connection, request, timeout, poll)
            except ConnectionClosedError as error:
                # The server may have closed an idle connection while the request was on its way.
                broken = error.__cause__
                told = not isinstance(broken, BrokenAnswerError) or broken.begun or (poll and poll.cut)
                if told or clocks.monotonic() - sent > _STALE:
                    raise
        return self._over(self._connected(), request, timeout, poll)

    def _over(self, connection: Connection, request: bytes, timeout: float, poll: Poll | None) -> Reply:
        try:
            with poll.waiting(connection) if poll else contextlib.nullcontext():
                reply = connection.exchange(request, timeout)
        except BaseException as error:
            connection.close()
            if isinstance(error, TimeoutError | BrokenAnswerError | ProtocolError):
                raise not_answered(self.wire.url, error) from error
            raise
        self._pool.give(connection)
        return reply

    def _connected(self) -> Connection:
        wire = self.wire
        try:
            connection = connected(wire.server, wire.tls, self._connect_timeout)
        except (OSError, UnicodeError) as error:  # errors of TLS, and of time, among them
            raise not_connected(wire.url, error) from error
        if not (connection.by_kernel or wire.tls or self._warned):
            self._warned = True
            _logger.warning(
                "the sockets here do not keep the kernel's timeouts, as those of gevent and eventlet: requests to "
                "SQS go with Python's, for more CPU time"
            )
        return connection

    def _error(self, action: str, reply: Reply) -> ClientError:
        """Return the error that the client would raise."""
        check_error(reply.status, reply.headers, reply.body)
        answer = {"status_code": reply.status, "headers": HeadersDict(reply.headers), "body": reply.body}
        try:
            parsed = self._parser.parse(answer, None)
            told = parsed.get("Error", {})
            shape = self._model.shape_for_error_code(told.get("Code"))
            if shape is not None:
                parsed.update(self._parser.parse(answer, shape))
        except Exception as error:
            raise ResponseParserError(f"an answer with status {reply.status} is not SQS's") from error
        kind: Callable[..., ClientError] = self._errors.from_code(
            told.get("QueryErrorCode") or told.get("Code")
        )
        return kind(parsed, action)
