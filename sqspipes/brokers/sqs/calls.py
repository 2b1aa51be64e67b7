"""Calls: the one seam through which every request to SQS goes."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sqspipes.brokers.sqs.account import (
    CONNECT_TIMEOUT,
    CONNECTIONS,
    POLL_TIMEOUT,
    READ_TIMEOUT,
    Access,
    Account,
)
from sqspipes.brokers.sqs.credentials import Credentials
from sqspipes.brokers.sqs.errors import tells_a_secret, throttles, translated
from sqspipes.brokers.sqs.lean.exchange import Lean
from sqspipes.brokers.sqs.lean.wire import ACTIONS, learnt_or_none
from sqspipes.brokers.sqs.quota import Quota
from sqspipes.brokers.sqs.transport.answers import AnswerGate
from sqspipes.brokers.sqs.transport.clock import ServerClock
from sqspipes.brokers.sqs.transport.polls import Poll, Polls
from sqspipes.errors import BrokerClosedError, BrokerError, BrokerUnavailableError


class PollCutError(BrokerUnavailableError):
    """A poll was ended by an interrupt."""


class Calls:
    """Calls SQS. It connects at its first call, in each process anew, and repeats no call that was answered."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._locks: tuple[int, threading.Lock] = (os.getpid(), threading.Lock())
        self._made: _Clients | None = None
        self._closed = False

    def call(self, action: str, params: Mapping[str, Any], *, queue: str = "") -> dict[str, Any]:
        """Return SQS's answer, or raise one of our errors; ``queue`` is named in it."""
        clients = self._clients()
        quota = clients.quotas[action, queue]
        quota.wait()
        try:
            answer = clients.call(action, params)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            failure = self._translated(error, clients, action, queue)
        else:
            clients.answered.set()
            quota.answered()
            return answer
        # Not where the other error is at hand: a traceback shows that one too, and it may hold a secret.
        raise failure

    def poll(self, params: Mapping[str, Any], *, queue: str) -> dict[str, Any]:
        """Receive, in reach of ``interrupt``; a poll that it ended raises ``PollCutError``."""
        clients = self._clients()
        quota = clients.quotas["ReceiveMessage", queue]
        quota.wait()
        with clients.polls.begun() as poll:
            try:
                answer = clients.poll(params, poll)
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                if poll.cut and not self._closed and not isinstance(error, ClientError):
                    raise PollCutError(f"ReceiveMessage on {queue} was interrupted") from error
                failure = self._translated(error, clients, "ReceiveMessage", queue)
            else:
                clients.answered.set()
                quota.answered()
                return answer
        raise failure

    def interrupt(self) -> None:
        """End the polls that are open now."""
        clients = self._made
        if clients is not None and clients.process == os.getpid():
            clients.polls.interrupt()

    def lean_calls(self) -> LeanCalls | None:
        """Return what an exchange needs of this process's connections; None where boto3 carries the messages."""
        clients = self._clients()
        if clients.lean is None:
            return None
        return LeanCalls(clients, clients.lean, self._translated)

    def arn(self, queue: str, url: str) -> str:
        """Return a queue's ARN as its address tells it."""
        meta = self._clients().caller.meta
        return f"arn:{meta.partition}:sqs:{meta.region_name}:{url.rstrip('/').split('/')[-2]}:{queue}"

    def close(self) -> None:
        """Close every connection; later calls raise ``BrokerClosedError``."""
        self._closed = True
        clients, self._made = self._made, None
        if clients is not None:
            clients.close()

    def _clients(self) -> _Clients:
        if self._closed:
            raise BrokerClosedError("the broker is closed")
        clients = self._made
        process = os.getpid()
        if clients is not None and clients.process == process:
            return clients
        if self._locks[0] != process:
            # A thread that is not in this process may have held the lock at the fork.
            self._locks = (process, threading.Lock())
        with self._locks[1]:
            if self._made is None or self._made.process != process:
                parents, self._made = self._made, _connected(self._account)
                if parents is not None:
                    parents.close()
            return self._made

    def _translated(self, error: Exception, clients: _Clients, action: str, queue: str) -> BrokerError:
        if self._closed:
            return BrokerClosedError("the broker was closed")
        if throttles(error):
            clients.quotas[action, queue].throttled()
        known, refreshable = clients.answered.is_set(), clients.credentials.refreshable
        found = translated(error, action, queue, refreshable=refreshable, known=known)
        if isinstance(error, ClientError):
            clients.answered.set()
        if not tells_a_secret(error):
            found.__cause__ = error
        return found


class LeanCalls:
    """What requests have in common that are made without ``Calls.call``: keys, quotas, errors. Nothing here blocks.

    Only ``renew`` does.
    """

    def __init__(
        self,
        clients: _Clients,
        lean: Lean,
        translated: Callable[[Exception, _Clients, str, str], BrokerError],
    ) -> None:
        self._clients = clients
        self._translated = translated
        self._keys: Any = None
        self.lean = lean

    @property
    def should_renew(self) -> bool:
        """Whether the keys should be renewed; there may be time for that."""
        return self._clients.credentials.are_old

    @property
    def must_renew(self) -> bool:
        """Whether no request should go before the keys were renewed."""
        credentials = self._clients.credentials
        return credentials.are_old and (self._keys is None or credentials.are_to_be_renewed)

    def keys(self) -> Any:
        """Return the keys to sign with: those of now, or those that were had last. May raise ``CredentialsError``."""
        if not self._clients.credentials.are_old:
            self._keys = self._clients.credentials.get_frozen_credentials()
        return self._keys

    def renew(self) -> None:
        """Renew the keys; waits for the token service."""
        self._keys = self._clients.credentials.get_frozen_credentials()

    def seconds_to_wait(self, action: str, queue: str) -> float:
        """Take the turn of a request; return the seconds until it comes."""
        return self._clients.quotas[action, queue].seconds_to_wait()

    def answered(self, action: str, queue: str) -> None:
        """Note an answer."""
        if not self._clients.answered.is_set():  # to set it takes longer
            self._clients.answered.set()
        self._clients.quotas[action, queue].answered()

    def translated(self, error: Exception, action: str, queue: str) -> BrokerError:
        """Return one of our errors for what a request met."""
        return self._translated(error, self._clients, action, queue)


@dataclass(frozen=True)
class _Clients:
    """One process's connections.

    Either ``lean`` carries the messages, or boto3 does and ``receiver`` is there: a poll must never wait for a
    connection that another request uses.
    """

    process: int
    caller: Any
    polls: Polls
    gate: AnswerGate
    credentials: Credentials
    clock: ServerClock
    lean: Lean | None = None
    receiver: Any = None
    #: Whether the server ever answered.
    answered: threading.Event = field(default_factory=threading.Event)
    quotas: defaultdict[tuple[str, str], Quota] = field(default_factory=lambda: defaultdict(Quota))

    def call(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if self.lean is not None and action in ACTIONS:
            return self.lean.call(action, params, READ_TIMEOUT)
        return self._through_boto3(self.caller, action, params)

    def poll(self, params: Mapping[str, Any], poll: Poll) -> dict[str, Any]:
        if self.lean is not None:
            return self.lean.call("ReceiveMessage", params, POLL_TIMEOUT, poll)
        return self._through_boto3(self.receiver, "ReceiveMessage", params)

    def _through_boto3(self, client: Any, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        # What botocore would raise from inside its own call does not say that it is about the credentials.
        self.credentials.get_frozen_credentials()
        ahead = self.clock.ahead
        try:
            return self.gate.call(client, action, params)
        except ClientError as error:
            if error.operation_name != action:
                raise self.credentials.failed(error) from error
            if not self.clock.corrected(error, ahead):
                raise
            return self.gate.call(client, action, params)
        except RuntimeError as error:
            # As botocore says it of credentials that were renewed between the line above and its request.
            raise self.credentials.failed(error) from error

    def close(self) -> None:
        """Close the connections; in a child only its own copies of the parent's sockets."""
        if self.lean is not None:
            self.lean.close()
        if self.process == os.getpid():
            self.polls.interrupt()
            self.caller.close()
            if self.receiver is not None:
                self.receiver.close()


def _connected(account: Account) -> _Clients:
    """Make this process's clients; nothing is sent to SQS yet."""
    access = Access(account)
    caller = access.client(READ_TIMEOUT)
    polls, gate, process = Polls(), AnswerGate(), os.getpid()
    credentials, clock = access.credentials, ServerClock(access.credentials)
    credentials.get_frozen_credentials()
    gate.install(caller)
    lean = _lean(access, caller, clock) if account.transport == "lean" else None
    clock.install(caller)
    if lean is not None:
        return _Clients(process, caller, polls, gate, credentials, clock, lean=lean)
    receiver = access.client(POLL_TIMEOUT)
    gate.install(receiver)
    clock.install(receiver)
    polls.install(receiver)
    return _Clients(process, caller, polls, gate, credentials, clock, receiver=receiver)


def _lean(access: Access, client: Any, clock: ServerClock) -> Lean | None:
    try:
        wire = learnt_or_none(client, access.credentials)
    except ClientError as error:
        raise access.credentials.failed(error) from error
    except BotoCoreError as error:
        raise translated(error, "connect", "", refreshable=access.credentials.refreshable) from error
    if wire is None:
        return None
    return Lean(wire, client, access.credentials, clock, connections=CONNECTIONS, connect=CONNECT_TIMEOUT)
