"""Credentials: the keys of now. Those that are renewed may fail to be, and that is an outage like any other."""

from __future__ import annotations

import threading
from typing import Any

from sqspipes.brokers.sqs.errors import unfetched
from sqspipes.errors import BrokerError, CredentialsError

#: Seconds before their end from which on botocore has one request get new credentials, and every request wait.
_ADVISORY, _MANDATORY = 900, 600

_NAMES = {"access_key": "AWS access key", "secret_key": "AWS secret key", "token": "AWS session token"}


class Credentials:
    """The credentials of one session, in one process; what goes wrong with them is one of our errors."""

    def __init__(self, found: Any) -> None:
        self._found = found
        #: Whether expired credentials will be replaced.
        self.refreshable = hasattr(found, "refresh_needed")
        self._lock = threading.Lock()
        self._failed = 0
        self._error: BrokerError | None = None
        self._had = False
        self._checked: Any = None  # the keys that were looked at last

    def get_frozen_credentials(self) -> Any:
        """Return the keys of now, as botocore freezes them; what another thread waited for in vain fails here too."""
        failed = self._failed
        if not (self.refreshable and self._found.refresh_needed(_MANDATORY)):
            return self._frozen()
        with self._lock:
            if self._failed != failed and self._error is not None:
                # Each of many threads in turn would wait for a token service that does not answer.
                raise type(self._error)(str(self._error)) from self._error.__cause__
            return self._frozen()

    @property
    def are_old(self) -> bool:
        """Whether they should be renewed soon: to ask for the keys of now may take long."""
        return self.refreshable and self._found.refresh_needed(_ADVISORY)

    @property
    def are_to_be_renewed(self) -> bool:
        """Whether no request should be made with them any more."""
        return self.refreshable and self._found.refresh_needed(_MANDATORY)

    def failed(self, error: Exception) -> BrokerError:
        """Return our error for what was raised while keys were fetched."""
        return unfetched(error, before=self._had)

    def _frozen(self) -> Any:
        try:
            keys = self._found.get_frozen_credentials()
        except Exception as error:
            self._error, self._failed = self.failed(error), self._failed + 1
            raise self._error from error
        if keys != self._checked:
            _check(keys)
            self._checked = keys
        self._had = True
        return keys


def _check(keys: Any) -> None:
    """Refuse what no request can carry, without showing it: botocore's own error would."""
    for what in ("access_key", "secret_key", "token"):
        text = getattr(keys, what) or ""
        if not (text.isascii() and text.isprintable() and text == text.strip()):
            raise CredentialsError(
                f"the {_NAMES[what]} cannot be right: it has a line end, a space around it, or a character that is "
                "not ASCII. Look where it is set: aws_key= and aws_secret=, the environment, a profile or session="
            )
