"""Calls: the one seam through which every request to SQS goes, and all that knows boto3."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sqspipes.brokers._sqs_errors import tells_the_signature, translated
from sqspipes.brokers._sqs_polls import Polls
from sqspipes.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    CredentialsError,
    OptionError,
)

#: Seconds for a connection to be made, and for an answer. A poll is answered within 20.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 15.0
POLL_TIMEOUT = 30.0

#: Connections that each client keeps.
CONNECTIONS = 64

_WAYS = (
    "Give aws_key= and aws_secret=, or the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
    "profile with AWS_PROFILE), or a boto3 session with session=. Without an account: "
    "SQSPIPES_BROKER=sqlite:///pipe.db"
)
_REGIONS = (
    "Give aws_region=, or the environment (AWS_REGION, AWS_DEFAULT_REGION, or a profile that has a region), "
    "or a boto3 session with session=. Without an account: SQSPIPES_BROKER=sqlite:///pipe.db"
)


class PollCutError(BrokerUnavailableError):
    """A poll was ended by an interrupt."""


@dataclass(frozen=True)
class Account:
    """Who calls, and where: what is not given is found as boto3 finds it. The secret has no repr."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    region: str | None = None
    endpoint_url: str | None = None
    session: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if bool(self.key) != bool(self.secret):
            there, missing = ("aws_key", "aws_secret") if self.key else ("aws_secret", "aws_key")
            raise OptionError(f"{there} is given without {missing}: give both or neither")
        if self.key and self.session is not None:
            raise OptionError("aws_key and session are both given: give one of them")


class Calls:
    """Calls SQS. It connects at its first call, in each process anew, and repeats nothing by itself."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._locks: tuple[int, threading.Lock] = (os.getpid(), threading.Lock())
        self._made: _Clients | None = None
        self._closed = False

    def call(self, action: str, params: Mapping[str, Any], *, queue: str = "") -> dict[str, Any]:
        """Return SQS's answer, or raise one of our errors; ``queue`` is named in it."""
        clients = self._clients()
        try:
            return clients.call(clients.caller, action, params)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise self._translated(error, clients, action, queue) from _cause(error)

    def poll(self, params: Mapping[str, Any], *, queue: str) -> dict[str, Any]:
        """Receive, in reach of ``interrupt``; a poll that it ended raises ``PollCutError``."""
        clients = self._clients()
        with clients.polls.begun() as poll:
            try:
                return clients.call(clients.receiver, "ReceiveMessage", params)
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                if poll.cut and not self._closed and not isinstance(error, ClientError):
                    raise PollCutError(f"ReceiveMessage on {queue} was interrupted") from error
                raise self._translated(error, clients, "ReceiveMessage", queue) from _cause(error)

    def interrupt(self) -> None:
        """End the polls that are open now."""
        clients = self._made
        if clients is not None and clients.process == os.getpid():
            clients.polls.interrupt()

    def arn(self, queue: str, url: str) -> str:
        """Return a queue's ARN as its address tells it."""
        meta = self._clients().caller.meta
        return f"arn:{meta.partition}:sqs:{meta.region_name}:{url.rstrip('/').split('/')[-2]}:{queue}"

    def close(self) -> None:
        """Close every connection; later calls raise ``BrokerClosedError``."""
        self._closed = True
        clients, self._made = self._made, None
        if clients is not None and clients.process == os.getpid():
            clients.polls.interrupt()
            clients.caller.close()
            clients.receiver.close()

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
                self._made = _connected(self._account)
            return self._made

    def _translated(self, error: Exception, clients: _Clients, action: str, queue: str) -> BrokerError:
        if self._closed:
            return BrokerClosedError("the broker was closed")
        return translated(error, action, queue, refreshable=clients.refreshable)


@dataclass(frozen=True)
class _Clients:
    """One process's clients: a poll must never wait for a connection that another request uses."""

    process: int
    caller: Any
    receiver: Any
    polls: Polls
    refreshable: bool

    @staticmethod
    def call(client: Any, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        # The name is looked up in botocore's own cache.
        result: dict[str, Any] = getattr(client, xform_name(action))(**params)
        return result


def _cause(error: Exception) -> Exception | None:
    return None if tells_the_signature(error) else error


def _connected(account: Account) -> _Clients:
    """Make this process's clients; nothing is sent to SQS yet."""
    try:
        session = account.session or _session(account)
        region = account.region or session.region_name or os.environ.get("AWS_REGION")
        if not region:
            raise CredentialsError(f"no AWS region is set. {_REGIONS}")
        credentials = session.get_credentials()
        if credentials is None:
            raise CredentialsError(f"no AWS credentials were found. {_WAYS}")
        caller = _client(session, account, region, READ_TIMEOUT)
        receiver = _client(session, account, region, POLL_TIMEOUT)
    except BotoCoreError as error:
        found = translated(error, "connect", "")
        if isinstance(found, CredentialsError):
            raise CredentialsError(f"{error}. {_WAYS}") from error
        raise found from error
    polls = Polls()
    polls.install(receiver)
    return _Clients(os.getpid(), caller, receiver, polls, hasattr(credentials, "refresh_needed"))


def _session(account: Account) -> Any:
    return boto3.Session(aws_access_key_id=account.key, aws_secret_access_key=account.secret)


def _client(session: Any, account: Account, region: str, read_timeout: float) -> Any:
    config = Config(
        # The runner repeats what failed, knows what may be repeated, and tells of it.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=read_timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        parameter_validation=False,
        user_agent_extra="sqspipes",
    )
    try:
        return session.client("sqs", region_name=region, endpoint_url=account.endpoint_url, config=config)
    except ValueError as error:
        raise OptionError(f"endpoint_url is {account.endpoint_url!r}, region {region!r}: {error}") from error
