"""The embedded broker's files: whose they are, who waits for whom, and what happens when they are gone or full."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqspipes import BrokerError, BrokerUnavailableError, RunError, TaskClient
from sqspipes.brokers.base import Entry, QueueSpec
from sqspipes.brokers.sqlite import SqliteBroker
from tests.integration.support import ROOT


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/pipe.db"


@pytest.fixture
def client(url: str) -> Iterator[TaskClient]:
    with TaskClient("files", broker=url).register_tasks([{"name": "task", "method": print}]) as client:
        client.put("first")
        yield client


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Other programs' files


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("open_meanwhile", [True, False], ids=["open", "closed"])
@pytest.mark.parametrize("statement", ["CREATE TABLE aunt(id)", "PRAGMA application_id=7"])
def test_database_of_another_program_is_left_as_it_is(
    tmp_path: Path, url: str, statement: str, journal: str, open_meanwhile: bool
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db", isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode={journal}")
        other.execute(statement)
        if not open_meanwhile:
            other.close()
        before = _files(tmp_path)
        for _ in range(2):
            with pytest.raises(BrokerError, match="another program's"):
                SqliteBroker(url).names("")
        after = _files(tmp_path)
        # Who reads a log says so beside it.
        assert after.keys() == before.keys()
        assert all(after[name] == before[name] for name in before if not name.endswith("-shm"))
        if open_meanwhile:
            other.execute("CREATE TABLE uncle(id)")


@pytest.mark.parametrize(
    "content", [b"a letter to my aunt" * 100, b"SQLite format 3\0" + b"\xff" * 4080, b"x"]
)
def test_file_that_is_no_database_is_left_as_it_is(tmp_path: Path, url: str, content: bytes) -> None:
    (tmp_path / "pipe.db").write_bytes(content)
    with pytest.raises(BrokerError):
        SqliteBroker(url).names("")
    assert _files(tmp_path) == {"pipe.db": content}


def test_what_is_no_file_is_refused(tmp_path: Path, url: str) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    with pytest.raises(BrokerError, match="is not a file"):
        SqliteBroker(url).names("")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.db"]


def test_empty_file_is_made_a_database(tmp_path: Path, url: str) -> None:
    (tmp_path / "pipe.db").touch()
    broker = SqliteBroker(url)
    broker.declare([QueueSpec("q")])
    assert broker.names("") == ["q"]
    broker.close()


# Rights


@pytest.mark.parametrize("umask", [0o077, 0o007, 0o022])
def test_umask_decides_about_all_new_files(tmp_path: Path, url: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        broker = SqliteBroker(url)
        broker.declare([QueueSpec("q")])
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(
        ["pipe.db", "pipe.db-wal", "pipe.db-shm", "pipe.db-turn", "pipe.db-lock"], 0o666 & ~umask
    )
    broker.close()


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_lock_files_have_the_rights_of_the_database(tmp_path: Path, url: str, mode: int) -> None:
    with contextlib.closing(SqliteBroker(url)) as broker:
        broker.declare([QueueSpec("q")])
    (tmp_path / "pipe.db").chmod(mode)
    with contextlib.closing(SqliteBroker(url)) as broker:
        broker.declare([QueueSpec("q")])
        assert {stat.S_IMODE((tmp_path / f"pipe.db{end}").stat().st_mode) for end in ("-turn", "-lock")} == {
            mode
        }
        for end in ("-turn", "-lock"):
            (tmp_path / f"pipe.db{end}").unlink()
    with contextlib.closing(SqliteBroker(url)) as broker:
        broker.declare([QueueSpec("q")])
        assert {stat.S_IMODE((tmp_path / f"pipe.db{end}").stat().st_mode) for end in ("-turn", "-lock")} == {
            mode
        }


# Waiting


@pytest.mark.parametrize("end", ["-turn", "-lock"])
def test_every_wait_for_a_turn_has_an_end(tmp_path: Path, url: str, client: TaskClient, end: str) -> None:
    descriptor = os.open(f"{tmp_path}/pipe.db{end}", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    begun = time.monotonic()
    with pytest.raises(BrokerUnavailableError, match=f"pipe.db{end} was held by another process"):
        client.put("second", timeout=0.5)
    with pytest.raises(BrokerUnavailableError, match=f"pipe.db{end} was held by another process"):
        SqliteBroker(url).declare([QueueSpec("q")])
    other = TaskClient("files", broker=url).register_tasks([{"name": "task"}])
    os.close(descriptor)
    other.put("third", timeout=5)
    client.put("fourth", timeout=5)
    descriptor = os.open(f"{tmp_path}/pipe.db{end}", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    other.close()
    os.close(descriptor)
    assert time.monotonic() - begun < 15
    assert client.status().levels[0].waiting == 3


# Gone


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "its folder moved"])
def test_run_whose_file_is_gone_ends_and_names_it(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file, url = folder / "pipe.db", f"sqlite:///{folder}/pipe.db"
    client = TaskClient("files", broker=url).register_tasks([{"name": "task", "method": print}])
    run = client.start()
    client.put("first")
    if how == "deleted":
        file.unlink()
    elif how == "moved":
        file.rename(folder / "old.db")
    elif how == "its folder moved":
        folder.rename(tmp_path / "elsewhere")
    else:
        (folder / "new.db").write_bytes(b"")
        (folder / "new.db").rename(file)
    with pytest.raises(RunError) as caught:
        run.wait(20)
    said = f"{file} was deleted, moved or replaced"
    assert said in str(caught.value)
    with pytest.raises(BrokerError, match=said):
        client.put("second", timeout=5)
    client.close()


def test_new_client_uses_the_file_that_took_the_place_of_another(
    tmp_path: Path, url: str, client: TaskClient
) -> None:
    for path in tmp_path.glob("pipe.db*"):
        path.unlink()
    with TaskClient("files", broker=url).register_tasks([{"name": "task", "method": print}]) as other:
        other.put("second")
        with pytest.raises(BrokerError, match="replaced"):
            client.status()
        client.close()
        assert other.status().levels[0].waiting == 1
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# Full


def test_file_whose_log_was_half_written_into_it_is_opened(tmp_path: Path) -> None:
    # As after a crash, or on a full disk: the header already tells of pages that only the log has.
    path = tmp_path / "pipe.db"
    with contextlib.closing(SqliteBroker(f"sqlite:///{path}")) as broker:
        broker.declare([QueueSpec("q")])
        for number in range(50):
            broker.send("q", [Entry("x" * 4_000, f"g{number}", f"id{number}")])
        log = Path(f"{path}-wal").read_bytes()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    Path(f"{path}-wal").write_bytes(log)
    with contextlib.closing(SqliteBroker(f"sqlite:///{path}")) as broker:
        assert broker.depth("q").waiting == 50


_FULL = """
import os, resource, signal, sys
from sqspipes import BrokerUnavailableError, TaskClient
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
taken = []
def opened():
    tasks = [{"name": "task", "method": taken.append, "workers": 4}]
    return TaskClient("full", broker=f"sqlite:///{sys.argv[1]}?synchronous=NORMAL").register_tasks(tasks)
with opened() as client:
    client.put_many(range(3_000))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1]) + 100_000, hard))
with opened() as client:
    client.run(drain=True)
    client.put("again")
    print(sorted(taken) == list(range(3_000)), client.status().levels[0].waiting)
"""


def test_full_disk_is_drained_as_long_as_the_log_fits_into_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FULL, f"{tmp_path}/pipe.db"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True 1\n", "")


_GROWN = """
import resource, signal, sys
from sqspipes import PutError, TaskClient
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
taken = []
def opened():
    tasks = [{"name": "task", "method": lambda value: taken.append(value["number"])}]
    return TaskClient("full", broker=f"sqlite:///{sys.argv[1]}?synchronous=NORMAL").register_tasks(tasks)
with opened() as client:
    try:
        client.put_many(({"number": number, "text": "x" * 20_000} for number in range(1_000)), timeout=0.1)
    except PutError as error:
        sent = error.sent
with opened() as client:
    client.run(drain=True)
    client.put({"number": 0})
    print(sorted(taken) == list(range(sent)), sent > 50, client.status().levels[0].waiting)
"""


def test_disk_that_the_file_filled_is_drained(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _GROWN, f"{tmp_path}/pipe.db"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True True 1\n", done.stderr
