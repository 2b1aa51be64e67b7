"""The file: how it is opened, and what is no file of ours."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from urllib.parse import quote

from sqspipes.brokers.sqlite.errors import translated
from sqspipes.brokers.sqlite.migrations import check_version, migrate
from sqspipes.brokers.sqlite.url import SqlitePlace
from sqspipes.errors import BrokerError

#: "sqsp": says that a file is ours.
APPLICATION = 0x73717370

#: UPSERT and RETURNING. https://www.sqlite.org/lang_returning.html
OLDEST_SQLITE = (3, 35, 0)

#: Seconds to wait for a lock that a foreign program holds; our own processes take turns instead. Whoever asked
#: repeats what failed, and says so: so that is soon.
_BUSY_SECONDS = 2.0

#: Bytes of the smallest database: one page.
_SMALLEST = 512


class ForeignFileError(BrokerError):
    """A file that is not ours: nothing of it was changed."""


def check_file(place: SqlitePlace) -> None:
    """Refuse a file that is not ours, before anything is made beside it; what its log has is seen later."""
    if place.path is None or not os.path.exists(place.path):
        return
    found = os.stat(place.path)
    if not stat.S_ISREG(found.st_mode):
        raise ForeignFileError(f"{place.address} is not a file")
    if found.st_size == 0:
        return
    if found.st_size < _SMALLEST:  # SQLite would write over it.
        raise ForeignFileError(f"{place.address} is not a database")
    # SQLite is asked, and not the bytes read: closing a file takes the locks away that this process has on it.
    url = f"file:{quote(os.fsencode(os.path.realpath(place.path)))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(url, uri=True)) as connection:
            # A crash or a full disk in the middle of a checkpoint leaves a file that is shorter than its header says:
            # the log has the rest. It is no reason to refuse a file.
            connection.execute("PRAGMA writable_schema=ON")
            ((changes,),) = connection.execute("PRAGMA schema_version").fetchall()
            _check_ours(connection, place, int(changes))
    except sqlite3.Error as error:
        raise translated(error, place.address) from error


def open_database(place: SqlitePlace) -> tuple[sqlite3.Connection, str]:
    """Open the place, make its tables if it is new, and return the connection and the file's own id.

    The caller holds the turnstile.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise BrokerError(f"SQLite is {sqlite3.sqlite_version}: 3.35 or newer is needed")
    try:
        connection = _connected(place)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, place.address) from error
    try:
        return connection, _prepared(connection, place)
    except sqlite3.Error as error:
        connection.close()
        raise translated(error, place.address) from error
    except BaseException:
        connection.close()
        raise


def _connected(place: SqlitePlace) -> sqlite3.Connection:
    # The real path: a link's lock files would stand beside the link.
    path = ":memory:" if place.path is None else os.path.realpath(place.path)
    if place.path is not None:
        with suppress(FileExistsError):  # SQLite itself would let no group write, whatever the umask says.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepared(connection: sqlite3.Connection, place: SqlitePlace) -> str:
    _check_ours(connection, place, _tables(connection))
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute(f"PRAGMA synchronous={place.synchronous}")
    # Rarer checkpoints cost less in all; the log stays at some 16 MB.
    connection.execute("PRAGMA wal_autocheckpoint=4000").fetchall()
    connection.execute("PRAGMA journal_size_limit=67108864").fetchall()
    connection.execute("PRAGMA cache_size=-65536")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _made(connection, place)
        ((file,),) = connection.execute("SELECT id FROM file").fetchall()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return str(file)


def _made(connection: sqlite3.Connection, place: SqlitePlace) -> None:
    """Make the tables of a new file, and bring those of an older version up to date."""
    if not _check_ours(connection, place, _tables(connection)):
        connection.execute(f"PRAGMA application_id={APPLICATION}")
    migrate(connection)


def _tables(connection: sqlite3.Connection) -> int:
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    return int(tables)


def _check_ours(connection: sqlite3.Connection, place: SqlitePlace, tables: int) -> bool:
    """Say whether the database has our tables; False when it has none, and an error when it has others."""
    ((application,),) = connection.execute("PRAGMA application_id").fetchall()
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    if (application, tables) == (0, 0):
        return False
    if application != APPLICATION:
        raise ForeignFileError(f"{place.address} is another program's SQLite database")
    check_version(connection, place.address, int(version))
    return True
