"""What redis-py's errors mean for the caller."""

from __future__ import annotations

import re

from redis import exceptions

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

#: The same, where redis-py has no class for the code: disk full, another's script runs, too few replicas.
_PASSING_CODES = frozenset({"MISCONF", "BUSY", "NOREPLICAS", "UNBLOCKED", "OOM", "READONLY", "MASTERDOWN"})

# Redis 6 has the code of what a script met inside the text: Error running script (...): ...: -OOM command not ...
_CODE = re.compile(r"(?:^|: -)([A-Z]+) ")


def translated(error: Exception, address: str) -> BrokerError:
    """Return the error that the port promises for one of redis-py's."""
    text = f"{address}: {error}"
    if isinstance(error, _CREDENTIALS):
        return CredentialsError(text)
    if isinstance(error, _PASSING) or _PASSING_CODES.intersection(_CODE.findall(str(error))):
        return BrokerUnavailableError(text)
    return BrokerError(text)
