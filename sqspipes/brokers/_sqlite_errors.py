"""What SQLite's errors mean for the caller."""

from __future__ import annotations

import sqlite3

from sqspipes.errors import BrokerError, BrokerUnavailableError

#: What may pass: SQLITE_BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, PROTOCOL.
#: https://www.sqlite.org/rescode.html
_PASSING = frozenset({5, 6, 7, 9, 10, 13, 15})

#: Where room in the log helps: SQLITE_IOERR, FULL.
_ROOM = frozenset({10, 13})


def lacks_room(error: sqlite3.Error) -> bool:
    """Say whether there may have been no room on the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _ROOM


def translated(error: sqlite3.Error | OSError, address: str) -> BrokerError:
    """Return the error that the port promises for one of SQLite's."""
    # Errors of the sqlite3 module itself have no code: there the class decides.
    code = getattr(error, "sqlite_errorcode", None)
    passing = isinstance(error, sqlite3.OperationalError) if code is None else code & 0xFF in _PASSING
    return (BrokerUnavailableError if passing else BrokerError)(f"{address}: {error}")
