"""What SQLite's errors mean for the caller."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack

from sqspipes.brokers.rules import lack_of_files, too_many_files
from sqspipes.errors import BrokerError, BrokerUnavailableError

#: What may pass: SQLITE_BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, PROTOCOL.
#: https://www.sqlite.org/rescode.html
_PASSING = frozenset({5, 6, 7, 9, 10, 13, 15})

#: Where room in the log helps: SQLITE_IOERR, FULL.
_ROOM = frozenset({10, 13})


#: A file that SQLite could not open: it does not say why. And the most files that it opens before it says so: the
#: database, its log and the log's index, and two more as room for what others open meanwhile.
_CANNOT_OPEN, _MOST_OPENED = 14, 5


def lacks_room(error: sqlite3.Error) -> bool:
    """Say whether there may have been no room on the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _ROOM


def translated(error: sqlite3.Error | OSError, address: str) -> BrokerError:
    """Return the error that the port promises for one of SQLite's."""
    # Errors of the sqlite3 module itself have no code: there the class decides.
    code = getattr(error, "sqlite_errorcode", None)
    if lack_of_files(error) or (code is not None and code & 0xFF == _CANNOT_OPEN and _full()):
        return too_many_files(address, error)
    passing = isinstance(error, sqlite3.OperationalError) if code is None else code & 0xFF in _PASSING
    return (BrokerUnavailableError if passing else BrokerError)(f"{address}: {error}")


def _full() -> bool:
    """Say whether this process may open fewer files than SQLite needs."""
    with ExitStack() as opened:
        try:
            for _ in range(_MOST_OPENED):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            return lack_of_files(error) is not None
    return False
