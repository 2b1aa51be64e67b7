"""Every example runs, and does what its first lines say."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.servers import Server
from tests.valkey import Valkey

ROOT = Path(__file__).parents[2]

#: Examples that have a test of their own, and where it is.
ELSEWHERE = {"folder_broker.py": "tests/contract/test_folder_broker.py"}
EXAMPLES = sorted(
    path.relative_to(ROOT / "examples").as_posix() for path in (ROOT / "examples").rglob("*.py")
)


@pytest.fixture
def environment() -> dict[str, str]:
    """An environment in which examples find the package and use their embedded broker."""
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {key: value for key, value in os.environ.items() if not key.startswith("SQSPIPES_")} | ours


@pytest.fixture
def sqs_environment(environment: dict[str, str], ministack: Server) -> dict[str, str]:
    """An environment that leads every example to an SQS server."""
    account = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-west-2"}
    return environment | account | {"SQSPIPES_BROKER": "sqs://", "AWS_ENDPOINT_URL_SQS": ministack.url}


@pytest.fixture
def redis_environment(environment: dict[str, str], valkey: Valkey) -> dict[str, str]:
    """An environment that leads every example to a Valkey server."""
    return environment | {"SQSPIPES_BROKER": f"{valkey.url}?prefix=examples"}


def run(
    example: str, *arguments: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run an example to its end, in a folder of its own."""
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@contextlib.contextmanager
def started(
    example: str, *arguments: str, folder: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start an example that does not end by itself; give it and what it prints."""
    command = [sys.executable, str(ROOT / "examples" / example), *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def check_counted(line: str) -> None:
    """Check a line of words.py's last task: ``word -> number of its vowels``."""
    word, _, number = line.strip().partition(" -> ")
    assert int(number) == sum(letter in "aeiou" for letter in word)


def test_words_runs_all_tasks_until_it_is_told_to_stop(tmp_path: Path, environment: dict[str, str]) -> None:
    with started("words.py", "all", folder=tmp_path, environment=environment) as (process, lines):
        for _ in range(5):
            check_counted(lines.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_words_runs_on_sqs(tmp_path: Path, sqs_environment: dict[str, str]) -> None:
    with started("words.py", "all", "2", folder=tmp_path, environment=sqs_environment) as (process, lines):
        check_counted(lines.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert list(tmp_path.iterdir()) == []


def test_words_runs_in_three_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(started("words.py", *task, folder=tmp_path, environment=environment))
            for task in (["generate", "8"], ["reduce", "2"], ["count", "16"])
        ]
        (_, words), (_, pairs), (_, counts) = processes
        assert words.readline().strip().isalpha()
        assert " -> " in pairs.readline()
        check_counted(counts.readline())
        for process, _ in processes:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(30) for process, _ in processes] == [0, 0, 0]


def test_orders_are_booked_in_order_for_each_customer(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = run("orders.py", folder=tmp_path, environment=environment)
    head, *lines = ended.stdout.splitlines()
    booked = [line.split() for line in lines]
    assert (ended.returncode, ended.stderr, head) == (0, "", "6 orders put")
    assert [order for customer, order, _ in booked if customer == "ada"] == ["1001", "1003", "1005"]
    assert [order for customer, order, _ in booked if customer == "grace"] == ["1002", "1004"]
    assert len(booked) == 6


def test_orders_put_again_are_not_booked_again(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "orders.csv").write_text("order,customer,amount\n1,ada,2.5\n2,ada,3\n", encoding="utf-8")
    runs = [run("orders.py", "orders.csv", folder=tmp_path, environment=environment) for _ in range(2)]
    assert [len(one.stdout.splitlines()) for one in runs] == [3, 1]


def test_fan_out_mends_and_redrives_what_failed(tmp_path: Path, environment: dict[str, str]) -> None:
    ended = run("fan_out.py", folder=tmp_path, environment=environment)
    assert ended.returncode == 0, ended.stderr
    before, _, rest = ended.stdout.partition("dead letters:\n")
    letters, _, after = rest.partition("after the fix, 1 sent again:\n")
    hosts = ["example.com", "example.org", "example.org"]
    assert sorted(line.strip() for line in before.splitlines()[1:]) == hosts
    assert letters.count("ValueError") == 1
    assert after == "  example.org\n"


@pytest.mark.parametrize("broker", ["sqlite", "redis", "sqs"])
def test_downloader_fetches_what_it_is_fed_and_keeps_it(
    broker: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    named = "environment" if broker == "sqlite" else f"{broker}_environment"
    environment: dict[str, str] = request.getfixturevalue(named)
    with contextlib.ExitStack() as stack:
        (_, said), (runner, _), (reader, results) = [
            stack.enter_context(started(*command, folder=tmp_path, environment=environment))
            for command in (
                ("downloader/server.py", "0"),
                ("downloader/pipelines.py", "run"),
                ("downloader/pipelines.py", "results"),
            )
        ]
        address = said.readline().split()[2].removesuffix("/1")
        found = []
        for urls in (["/1", "/2", "/none"], ["/1"]):
            feed = [address + url for url in urls]
            fed = run("downloader/pipelines.py", "feed", *feed, folder=tmp_path, environment=environment)
            assert fed.stdout == f"{len(urls)} fed\n", fed.stderr
            found += [json.loads(results.readline()) for _ in urls]
        for process in (runner, reader):
            process.send_signal(signal.SIGINT)
        assert [runner.wait(30), reader.wait(30)] == [130, 130]
    first, again = sorted(found[:3]), found[3]
    assert first == [
        [f"{address}/1", "web", 70],
        [f"{address}/2", "web", 70],
        [f"{address}/none", "nowhere", 0],
    ]
    assert again == [f"{address}/1", "cache", 70]
    assert len(list((tmp_path / "cache").glob("*.txt"))) == 2


@pytest.mark.parametrize(("lines", "code"), [("32\n212\n", 0), ("32\nwarm\n212\n", 1)])
def test_nightly_ends_with_a_code_that_says_how_it_went(
    lines: str, code: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "readings.txt").write_text(lines, encoding="utf-8")
    ended = run("nightly.py", "readings.txt", folder=tmp_path, environment=environment)
    assert ended.returncode == code, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["0.0 C", "100.0 C"]
    assert f"{code} dead letters" in ended.stderr


def test_example_of_the_readme_runs(tmp_path: Path, environment: dict[str, str]) -> None:
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    block = readme.partition(".. code-block:: python\n")[2].partition("\n\nEach task has a queue")[0]
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(block)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.stderr == ""
    assert sorted(ended.stdout.splitlines()) == ["hello 2", "queue 4", "rhythm 0"]


def test_every_example_is_run_by_a_test() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [example for example in EXAMPLES if f'"{example}"' not in text] == []
    assert all((ROOT / test).exists() for test in ELSEWHERE.values())
