"""A process that a function forks which sqspipes calls ends where it comes back: it has no part in the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.programs import comes_back
from tests.integration.support import ROOT

PROGRAM = Path(comes_back.__file__)

#: What follows: the codes of an exit, an error and a return, the value each time, and nobody dead.
AS_PYTHON = "[3, 1, 0] [1, 1, 1] 0"

#: What follows for other kinds.
OTHERWISE = {
    "soon": "[3, 0, 0] [1, 1, 1] 0",  # asyncio logs what a callback raises, and goes on
    "soon_before_a_task": "[3, 0, 0] [1, 1, 1] 0",
    "then_awaits": "[3, 1, 1] [1, 1, 1] 0",  # the loop is the parent's
    "generator_when_closed": "[3, 1, 0] [] 3",
    "async_generator_when_closed": "[3, 1, 0] [] 3",
}


def _run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(path), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("group", comes_back.KINDS)
def test_child_ends_where_it_comes_back(group: str, tmp_path: Path) -> None:
    done = _run(PROGRAM, group, "memory://", f"sqlite:///{tmp_path}/pipe.db")
    expected = [
        f"{kind}: {OTHERWISE.get(kind, AS_PYTHON)}" for kind in comes_back.KINDS[group] for _ in range(2)
    ]
    assert (done.stdout.splitlines(), done.returncode) == (expected, 0), done.stderr[-2_000:]
    assert ("a forked process cannot await" in done.stderr) is (group == "coroutines")


_PREPARES = """
import os, signal, sys
from sqspipes import TaskClient

def prepare():
    pid = os.fork()
    if pid:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    else:
        signal.alarm(20)

client = TaskClient("forks", broker=sys.argv[1]).register_tasks([{"name": "show", "method": print}])
if __name__ == "__main__":
    client.put("value")
    client.run(drain=True, processes=1, prepare=prepare)
"""


def test_child_of_what_prepares_a_process_ends_where_it_comes_back(tmp_path: Path) -> None:
    (tmp_path / "preparing.py").write_text(_PREPARES)
    done = _run(tmp_path / "preparing.py", f"sqlite:///{tmp_path}/pipe.db")
    assert (done.stdout.split(), done.returncode) == (["0", "value"], 0), done.stderr[-2_000:]
