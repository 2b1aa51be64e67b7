"""Files of older versions are brought up to date in place; those of newer ones are refused and stay as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sqspipes import BrokerError, TaskClient
from sqspipes.brokers.sqlite import migrations
from sqspipes.brokers.sqlite.migrations import MIGRATIONS, Migration

ROOT = Path(__file__).parents[2]

#: Made by commit cd641bc: a paused task, messages of two levels, three of one group, and a dead letter.
OLD = Path(__file__).with_name("files") / "cd641bc.db"

#: A change that older versions cannot work with: a column, filled in from what is there.
NEXT = Migration(
    2,
    "1.7.0",
    (
        "ALTER TABLE queue ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
        "UPDATE queue SET held=(SELECT count(*) FROM message m WHERE m.queue=queue.id)",
    ),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the old file."""
    return Path(shutil.copy(OLD, tmp_path / "pipe.db"))


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version after this one."""
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, NEXT))


def asked(file: Path, statement: str) -> list[Any]:
    """Return what SQLite itself says of a file."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(statement).fetchall()


@contextlib.contextmanager
def client_of(file: Path, taken: list[Any]) -> Iterator[TaskClient]:
    """Give a client of the pipe in the old file; what its tasks get is noted."""

    def a(value: Any) -> Any:
        taken.append(value)
        return value

    def b(value: Any) -> None:
        taken.append((value,))

    with TaskClient("old", broker=f"sqlite:///{file}") as client:
        yield client.register_tasks([{"method": a, "priorities": 2}, b])


def test_file_of_an_older_commit_goes_on(file: Path) -> None:
    taken: list[Any] = []
    with client_of(file, taken) as client:
        (letter,) = client.dead_letters("a")
        assert (letter.id, letter.value, letter.error) == ("dead", {"dies": 1}, "{'dies': 1}")
        assert set(client.status().paused) == {"b"}
        client.resume("b")
        assert client.redrive("a") == 1
        assert client.run(drain=True).reason == "drained"
    values = [0, 1, 2, {"dies": 1}]
    assert [each for each in taken if each in values] == values  # of one group, in order
    assert "high" in taken
    assert [each for each in taken if each in [(one,) for one in values]] == [(one,) for one in values]
    assert ("high",) in taken
    assert ("next",) in taken
    assert len(taken) == 11


def test_older_file_is_brought_up_to_date(file: Path, next_version: None) -> None:
    with client_of(file, []) as client:
        assert client.status().levels[0].waiting == 3
    assert asked(file, "PRAGMA user_version") == [(2,)]
    assert dict(asked(file, "SELECT name, held FROM queue WHERE name IS NOT NULL"))["old--a.fifo"] == 3
    assert asked(file, "SELECT release FROM needs") == [("1.7.0",)]


def test_new_file_has_the_newest_tables(tmp_path: Path, next_version: None) -> None:
    file = tmp_path / "new.db"
    with client_of(file, []) as client:
        client.put(1)
    assert asked(file, "PRAGMA user_version") == [(2,)]
    assert asked(file, "SELECT release FROM needs") == [("1.7.0",)]


def test_file_of_a_newer_version_is_refused_with_the_release_that_it_needs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, NEXT))
        with client_of(file, []) as client:
            client.status()
    before = file.read_bytes()
    with (
        client_of(file, []) as client,
        pytest.raises(
            BrokerError, match=r"version 2 and needs sqspipes 1\.7\.0 or newer: this one knows version 1"
        ),
    ):
        client.status()
    assert file.read_bytes() == before


def test_migration_that_fails_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration(2, "1.7.0", (*NEXT.statements, "SELECT 1 FROM nowhere"))
    before = asked(file, "SELECT sql FROM sqlite_master ORDER BY name")
    with monkeypatch.context() as newer:
        newer.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, broken))
        with client_of(file, []) as client, pytest.raises(BrokerError, match="nowhere"):
            client.status()
    assert asked(file, "PRAGMA user_version") == [(1,)]
    assert asked(file, "SELECT sql FROM sqlite_master ORDER BY name") == before
    with client_of(file, []) as client:
        assert client.status().levels[0].waiting == 3


#: Brings a file up to date: ends in the middle of it, or waits for the others and does it at the same time.
_PROGRAM = """
import os, sqlite3, sys
from sqspipes.brokers.sqlite import SqliteBroker, migrations
from sqspipes.brokers.sqlite.migrations import MIGRATIONS, Migration
file, how = sys.argv[1:]
statements = ("ALTER TABLE queue ADD COLUMN held INTEGER NOT NULL DEFAULT 0",)
if how == "die":
    class Statements(tuple):
        def __iter__(self):
            yield from tuple.__iter__(self)
            os._exit(9)
    statements = Statements(statements)
migrations.MIGRATIONS = (*MIGRATIONS, Migration(2, "1.7.0", statements))
broker = SqliteBroker(f"sqlite:///{file}")
print("ready", flush=True)
sys.stdin.readline()
print(len(broker.names("old--")))
broker.close()
"""


def started(file: Path, how: str) -> subprocess.Popen[str]:
    """Start a process that brings a file up to date when it is told to; it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(file), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_process_that_dies_in_the_middle_leaves_the_file_as_it_was(file: Path, next_version: None) -> None:
    process = started(file, "die")
    process.communicate("go\n", timeout=30)
    assert process.returncode == 9
    assert asked(file, "PRAGMA user_version") == [(1,)]
    with client_of(file, []) as client:
        assert client.status().levels[0].waiting == 3
    assert asked(file, "PRAGMA user_version") == [(2,)]


def test_processes_that_open_a_file_at_once_bring_it_up_to_date_once(file: Path) -> None:
    processes = [started(file, "go on") for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=30)[0] for process in processes] == ["6\n"] * 4
    assert asked(file, "PRAGMA user_version") == [(2,)]
