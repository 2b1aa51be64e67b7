"""The census counts the same on every broker and over several processes, and its ledger is honest."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sqspipes.demo import census, show
from tests.conftest import AWS
from tests.servers import Ministack

ROOT = Path(__file__).parents[2]
PACKAGES = ("json", "email", "asyncio")

# Some of the files that are parsed make Python warn.
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")


@pytest.fixture
def files() -> list[str]:
    """The source files of some packages."""
    return census.source_files(PACKAGES)


@pytest.fixture
def expected(files: list[str], tmp_path: Path) -> dict[str, Any]:
    """What a plain loop counts."""
    folder = tmp_path / "plain"
    folder.mkdir()
    return dict(census.plain_loop(files, folder).files)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The folder in which the pipe's calls are written down."""
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


def environment(**more: str) -> dict[str, str]:
    """The environment of a child process that finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_totals_are_those_of_a_plain_loop(
    files: list[str], expected: dict[str, Any], journal: Path, domain: str, pipe_broker: dict[str, Any]
) -> None:
    taken = census.Census(journal)
    with census.build_client(journal=journal, add_up=taken.add_up, domain=domain, **pipe_broker) as client:
        assert client.put_many(files, id=str) == len(files)
        client.run(drain=1.0)
    assert taken.files == expected
    assert census.read_ledger(journal, len(files)) == census.Ledger(len(files), 2 * len(files), 0, 0, 0)


@contextlib.contextmanager
def worker(task: str, broker: str, journal: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run one task of the census in a process of its own."""
    with show.start_worker(broker, journal, task) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["sqlite", "sqs"])
def shared_broker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a broker that several processes can share, the environment leading to it."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/pipe.db"
    server: Ministack = request.getfixturevalue("ministack")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS["aws_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS["aws_secret"])
    monkeypatch.setenv("AWS_REGION", AWS["aws_region"])
    return "sqs://"


def test_totals_are_the_same_over_three_processes(
    shared_broker: str, files: list[str], expected: dict[str, Any], journal: Path
) -> None:
    taken = census.Census(journal)
    with (
        census.build_client(shared_broker, journal, taken.add_up) as client,
        client.start("add_up") as run,
        worker("parse", shared_broker, journal) as parser,
        worker("count", shared_broker, journal) as counter,
    ):
        client.put_many(files, id=str)
        while len(taken.files) < len(files):
            assert (parser.poll(), counter.poll()) == (None, None)
            with contextlib.suppress(TimeoutError):
                run.wait(0.1)
    assert taken.files == expected
    ledger = census.read_ledger(journal, len(files))
    assert (ledger.handed_on, ledger.lost, ledger.twice) == (2 * len(files), 0, 0)


def test_demo_kills_a_worker_and_loses_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "sqspipes.demo", *PACKAGES],
        env=environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    ledger = dict(re.findall(r"^(\w[\w ]*?)  +([\d,]+)  ", ended.stdout, re.MULTILINE))
    files = len(census.source_files(PACKAGES))
    assert (ledger["put"], ledger["handed on"]) == (str(files), str(2 * files))
    assert (ledger["lost"], ledger["handed on twice"]) == ("0", "0")
    assert "kill -9 of worker" in ended.stdout
    assert "its totals are the same" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_interrupt_ends_the_demo_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sqspipes.demo"],
        env=environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "[" not in process.stdout.readline():
            pass
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        text = process.stdout.read()
        assert (process.wait(30), process.stderr.read()) == (130, "")
    assert "interrupted" in text
    assert len(workers) == 2
    assert [worker for worker in workers if worker.is_running()] == []
    assert list(tmp_path.iterdir()) == []


# The ledger: a journal is made up, and the ledger must tell.


def written(journal: Path, process: int, *calls: tuple[str, str, str]) -> None:
    """Write calls down as a process would."""
    text = "".join("\t".join(call) + "\n" for call in calls)
    (journal / f"{process}-1.calls").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [("add_up", "a", "s")], census.Ledger(1, 1, 0, 0, 0)),
        ([("parse", "a", "put")], [], census.Ledger(1, 0, 1, 0, 0)),
        ([("count", "a", "s")], [("count", "a", "s"), ("add_up", "a", "t")], census.Ledger(1, 2, 0, 0, 1)),
        ([("count", "a", "s")], [("count", "a", "z"), ("add_up", "a", "t")], census.Ledger(1, 2, 0, 1, 1)),
        ([], [("add_up", "a", "t"), ("add_up", "a", "t")], census.Ledger(1, 1, 0, 1, 1)),
    ],
    ids=["handed on", "lost", "repeated by another process", "two results", "two copies of one result"],
)
def test_ledger_tells(
    first: list[tuple[str, str, str]],
    second: list[tuple[str, str, str]],
    expected: census.Ledger,
    journal: Path,
) -> None:
    written(journal, 1, *first)
    written(journal, 2, *second)
    assert census.read_ledger(journal, 1) == expected


def test_progress_is_a_line_per_quarter_where_it_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = show.Screen()
    for done in range(101):
        screen.progress(done, 100)
    assert capsys.readouterr().out.count("of 100 files\n") == 4
