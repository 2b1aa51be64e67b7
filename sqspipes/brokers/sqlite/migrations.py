"""Migrations: the tables of a file, and how a file of an older version is brought up to date in place.

A message row is written once and never changed. ``ready`` has one row for each group that may be handed out
now: its oldest message. ``flight`` has a row for each message that was received: its receive count, and its
lease while it has one. So each step touches a few rows, however many messages wait.

A change of the tables that older versions cannot work with is a further entry of ``MIGRATIONS``. One that they
need not know, as a further table, is an entry of ``_ADDITIONS``: then old and new processes share a file. A process
that has a file open looks at its version no more, so the first entry that changes a table has to see to it that no
older process goes on writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from sqspipes.errors import BrokerError


class Migration(NamedTuple):
    """One step: the version that a file has after it, the release of sqspipes that brought it, and its statements."""

    version: int
    release: str
    statements: Sequence[str]


# - file.last is the last number given to a message: a plain rowid comes again once its table is empty, and
#   then an old receipt would match a new message.
# - A queue without a name was deleted or purged; what it held is cleaned up in small transactions.
# - queue.origin is the queue whose deduplication ids it knows: a purged queue goes on with those it had.
# - message.lane is a hash of the group; the same number in another queue is another lane.
MIGRATIONS = (
    Migration(
        1,
        "1.0.0",
        (
            "CREATE TABLE file(id TEXT NOT NULL, last INTEGER NOT NULL)",
            "INSERT INTO file(id, last) VALUES(hex(randomblob(8)), 0)",
            """CREATE TABLE queue(
                id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, origin INTEGER,
                total INTEGER NOT NULL DEFAULT 0, dead TEXT, max_receives INTEGER NOT NULL)""",
            """CREATE TABLE message(
                seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, lane INTEGER NOT NULL, sent INTEGER NOT NULL,
                grp TEXT NOT NULL, body TEXT NOT NULL)""",
            "CREATE INDEX message_lane ON message(queue, lane)",
            """CREATE TABLE ready(
                queue INTEGER NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
                PRIMARY KEY(queue, seq)) WITHOUT ROWID""",
            """CREATE TABLE flight(
                seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, lane INTEGER NOT NULL, lease INTEGER,
                receives INTEGER NOT NULL)""",
            "CREATE INDEX flight_lease ON flight(queue, lease) WHERE lease IS NOT NULL",
            """CREATE TABLE seen(
                seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, key BLOB NOT NULL, at INTEGER NOT NULL,
                UNIQUE(queue, key))""",
        ),
    ),
)

# - tag.queue is the origin, which a purge does not change.
# - needs.release is the oldest release that can open the file: what an older one is to say when it refuses it.
_ADDITIONS = (
    """CREATE TABLE IF NOT EXISTS tag(
        queue INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY(queue, name)) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS needs(release TEXT NOT NULL)",
)


def newest() -> int:
    """Return the version of the tables that this sqspipes knows."""
    return MIGRATIONS[-1].version


def check_version(connection: sqlite3.Connection, address: str, version: int) -> None:
    """Refuse a file of ours whose version this sqspipes does not know: a newer one, or none at all."""
    if version < MIGRATIONS[0].version:
        raise BrokerError(f"{address} has tables of version {version}: there is no such version")
    if version > newest():
        try:
            found = connection.execute("SELECT release FROM needs").fetchone()
        except sqlite3.OperationalError:  # there is no such table
            found = None
        needed = "a newer sqspipes" if found is None else f"sqspipes {found[0]} or newer"
        raise BrokerError(
            f"{address} has tables of version {version} and needs {needed}: this one knows version {newest()}"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to date, in the caller's transaction: all of it is done, or nothing."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    for statement in _ADDITIONS:
        connection.execute(statement)
    for migration in MIGRATIONS:
        if migration.version > version:
            for statement in migration.statements:
                connection.execute(statement)
            connection.execute("DELETE FROM needs")
            connection.execute("INSERT INTO needs(release) VALUES(?)", (migration.release,))
            connection.execute(f"PRAGMA user_version={migration.version}")
