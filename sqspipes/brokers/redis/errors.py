"""What redis-py's errors mean for the caller."""

from __future__ import annotations

import re
import ssl

from redis import exceptions

from sqspipes.brokers.rules import chain, lack_of_files, too_many_files
from sqspipes.errors import BrokerError, BrokerUnavailableError, CredentialsError

#: Nobody, the wrong one, or no right to do this.
_CREDENTIALS = (
    exceptions.AuthenticationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)

#: No connection, no answer, a server that starts, is full, or is not the primary now.
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.MasterDownError,
    exceptions.TryAgainError,
    OSError,
)

#: Answers of a node of Redis Cluster.
_CLUSTER = (
    exceptions.AskError,
    exceptions.MovedError,
    exceptions.ClusterDownError,
    exceptions.ClusterCrossSlotError,
)

#: The same, as an older redis-py leaves them in the text.
_CLUSTER_CODES = frozenset({"MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"})

#: A server that answers questions and takes nothing in: a replica, a primary without replicas, a full disk.
_REFUSING_CODES = frozenset({"MISCONF", "NOREPLICAS", "READONLY", "MASTERDOWN"})

#: The same, where redis-py has no class for the code: disk full, another's script runs, too few replicas.
_PASSING_CODES = _REFUSING_CODES | {"BUSY", "UNBLOCKED", "OOM"}

# Redis 6 has the code of what a script met inside the text: Error running script (...): ...: -OOM command not ...
_CODE = re.compile(r"(?:^|: -)([A-Z]+) ")

# A script that does not find what it left: @user_script:12: attempt to concatenate a nil value
_LOST = re.compile(r"user_script|WRONGTYPE|Error (?:running|compiling) script")


class WrongFileError(exceptions.RedisError):
    """A file for TLS cannot be used."""


def refuses_writes(error: Exception) -> bool:
    """Say whether a server takes nothing in now, and would answer questions."""
    refused = isinstance(error, exceptions.ReadOnlyError | exceptions.MasterDownError)
    return refused or bool(_REFUSING_CODES.intersection(_CODE.findall(str(error))))


def translated(error: Exception, address: str, *, known: bool = True, evicts: str = "") -> BrokerError:
    """Return the error that the port promises for one of redis-py's.

    ``known``: the server was reached already, with the same settings; ``evicts``: how it drops keys, if it does.
    """
    text = f"{address}: {error}"
    passing = BrokerUnavailableError if known else BrokerError
    if isinstance(error, _CREDENTIALS):
        return CredentialsError(text)
    if isinstance(error, WrongFileError):
        return passing(text)
    codes = set(_CODE.findall(str(error)))
    if codes & _CLUSTER_CODES or (
        isinstance(error, _CLUSTER) and not isinstance(error, exceptions.MasterDownError)
    ):
        return BrokerError(f"{address} is a node of Redis Cluster, which is not supported: {error}")
    if isinstance(error, exceptions.InvalidResponse):
        return BrokerError(f"{address} is no Redis: {error}")
    found = lack_of_files(error)
    if found is not None:
        return too_many_files(address, found)
    tls = next((each for each in chain(error) if isinstance(each, ssl.SSLError)), None)
    if tls is not None:
        return passing(f"{address}: {_of_tls(tls)}: {error}")
    if isinstance(error, _PASSING) or codes & _PASSING_CODES:
        if not known and address.startswith("redis:") and isinstance(error, exceptions.ConnectionError):
            closed = "closed" in str(error) or "reset" in str(error)
            text += " A server that wants TLS closes such connections: then it is rediss://" if closed else ""
        return BrokerUnavailableError(text)
    if _LOST.search(str(error)):
        return keys_gone(address, evicts, str(error))
    if "unknown command" in str(error):
        text += ". Needed is Redis 6.2 or newer, or Valkey, and no Sentinel"
    return BrokerError(text)


def keys_gone(address: str, evicts: str, text: str) -> BrokerError:
    """Return the error for queues of which the server has lost a part."""
    why = evicts or "its maxmemory-policy has to be noeviction"
    return BrokerError(f"{address}: keys of messages are gone, or another program's; {why}: {text}")


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the server's certificate is not trusted, see ssl_ca_certs"
    if error.reason in ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "the server speaks no TLS: then it is redis://"
    return "TLS failed"
