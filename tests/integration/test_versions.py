"""Workers of an older version beside those of this one lose nothing; what was under way comes twice at most."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sqspipes import Reject, RunError, TaskClient
from tests.conftest import BrokerArguments
from tests.integration.support import ROOT, Seen, piped
from tests.integration.worlds import LEASE, Clock, dying

#: The last version that derived its ids from the bodies of messages.
OLDER = "cd641bc"

#: What runs with the older version: a pipe of three tasks, and what it is told to do with it.
PROGRAM = """
import json, logging, pathlib, sys
import sqspipes

told = json.loads(sys.argv[1])
assert pathlib.Path(sqspipes.__file__).is_relative_to(told["package"]), sqspipes.__file__
logging.disable()
refuses = False


def first(value):
    yield from (f"{value}{part}" for part in "abc")


def second(value):
    if refuses:
        raise sqspipes.Reject("not yet")
    return value


def third(value):
    print(value, flush=True)


client = sqspipes.TaskClient(told["domain"], broker=told["broker"], lease=5, retries=0)
client.register_tasks([first, second, third])
for action, arguments, options in told["actions"]:
    if action == "refuse":
        refuses = arguments[0]
    else:
        getattr(client, action)(*arguments, **options)
client.close()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the older package, taken from this project's history."""
    folder = tmp_path_factory.mktemp("older")
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "archive", "--format=zip", OLDER, "sqspipes"]
    try:
        archive = subprocess.run(command, check=False, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.fail("git is not there: it has the older version")
    if archive.returncode:
        reason = archive.stderr.decode(errors="replace").strip()
        pytest.fail(f"the history has no {OLDER} ({reason}): clone all of it, git fetch --unshallow")
    with zipfile.ZipFile(io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    return folder


Older = Callable[..., list[str]]


@pytest.fixture
def arguments(broker_arguments: BrokerArguments) -> dict[str, Any]:
    """What leads to a broker that both versions share; no broker looks into bodies, so one will do."""
    return broker_arguments("sqlite")


@pytest.fixture
def older(package: Path, arguments: dict[str, Any], domain: str, tmp_path: Path) -> Older:
    """A function that has a process of the older version do things; it returns what its third task was given."""

    def act(*actions: tuple[Any, ...]) -> list[str]:
        whole = [(action, list(given), options) for action, *given, options in actions]
        told = {**arguments, "domain": domain, "package": str(package), "actions": whole}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(told)],
            check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(package)},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()

    return act


def drained(task: str) -> tuple[Any, ...]:
    """Return the action of running one task until nothing is left."""
    return ("run", task, {"drain": True})


#: The second task makes dead letters of all that waits for it.
GIVEN_UP = (("refuse", True, {}), drained("second"))


@pytest.fixture
def seen() -> Seen:
    """What the third task was given here."""
    return Seen()


@pytest.fixture
def newer(arguments: dict[str, Any], domain: str, seen: Seen) -> Iterator[TaskClient]:
    """A client of this version, of the same pipe. Its first task refuses what was not redriven."""
    refused: set[str] = set()

    def first(value: str) -> Iterator[str]:
        if value not in refused:
            refused.add(value)
            raise Reject("not yet")
        yield from (f"{value}{part}" for part in "abc")

    def second(value: str) -> str:
        return value

    with piped(domain, arguments, first, second, {"method": seen.take, "name": "third"}, retries=0) as client:
        client.create_queues()
        yield client


def test_what_the_older_version_put_and_handed_on_goes_through_this_one(
    older: Older, newer: TaskClient, seen: Seen
) -> None:
    older(("put", "1", {"id": "x", "group": "g"}), ("put", "2", {"id": "x", "group": "h"}), drained("first"))
    newer.run(drain=True)
    assert sorted(seen.values) == ["1a", "1b", "1c", "2a", "2b", "2c"]


def test_what_this_version_put_goes_through_the_older_one(older: Older, newer: TaskClient) -> None:
    newer.put("1", id="x", group="g")
    newer.put("2", id="y", group="g")
    arrived = older(("run", {"drain": True}))
    assert sorted(arrived) == ["1a", "1b", "1c", "2a", "2b", "2c"]


def test_older_version_carries_what_a_redrive_wrote_and_nothing_is_mistaken_for_it(
    older: Older, newer: TaskClient, seen: Seen
) -> None:
    newer.put("1", id="x")
    newer.run("first", drain=True)
    assert newer.redrive() == 1
    # The older version copies what it does not know to the outputs, gives them up, and redrives them itself.
    older(drained("first"), *GIVEN_UP)
    assert len(list(newer.dead_letters("second"))) == 3
    older(("redrive", {}))
    newer.run(drain=True)
    assert sorted(seen.values) == ["1a", "1b", "1c"]


def test_letters_of_the_older_version_are_redriven_by_this_one_and_the_other_way_round(
    older: Older, newer: TaskClient, seen: Seen
) -> None:
    older(("put", "1", {"id": "x", "group": "g"}), drained("first"), *GIVEN_UP)
    assert newer.redrive("second") == 3
    older(*GIVEN_UP, ("redrive", {}))
    newer.run(drain=True)
    assert sorted(seen.values) == ["1a", "1b", "1c"]


def test_what_was_under_way_in_this_version_comes_twice_at_most_from_the_older_one(
    older: Older, arguments: dict[str, Any], domain: str
) -> None:
    clock = Clock()
    clock.now = time.time() - 2 * LEASE  # its leases are over for the other

    def first(value: str) -> Iterator[str]:
        yield from (f"{value}{part}" for part in "abc")

    with (
        contextlib.closing(dying(arguments["broker"], clock)) as broker,
        piped(
            domain, {"broker": broker, "lease": LEASE}, first, {"name": "second"}, {"name": "third"}
        ) as client,
    ):
        client.put("1", id="x")
        broker.dies_for = client.tasks[0].queue(0)
        with pytest.raises(RunError):
            client.run("first", drain=True)
    arrived = Counter(older(("run", {"drain": True})))
    assert arrived.keys() == {"1a", "1b", "1c"}
    assert set(arrived.values()) <= {1, 2}
