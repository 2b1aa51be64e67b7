"""Whole pipes under gevent and eventlet, whose threads take turns: a call that waits holds up no other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys, threading
from sqspipes import TaskClient

seen, go_on = [], threading.Event()

def first(value):
    if value == 0:
        # Others are through before this one, whose thread waits meanwhile.
        assert go_on.wait(30)
    return value

def last(value):
    seen.append(value)
    if len(seen) == 99:
        go_on.set()

with TaskClient(sys.argv[1], **json.loads(sys.argv[2])) as client:
    client.register_tasks([{"method": first, "workers": 4}, {"method": last, "workers": 4}])
    client.put_many(range(100))
    summary = client.run(drain=0.5)
print(json.dumps([sorted(seen), seen[-1], summary.done]))
"""

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
def test_pipe_runs_where_threads_are_greenlets(
    library: str, domain: str, pipe_broker: dict[str, Any]
) -> None:
    code = f"{PATCHES[library]}\n{PROGRAM}"
    program = [sys.executable, "-W", "ignore", "-c", code, domain, json.dumps(pipe_broker)]
    found = subprocess.run(program, capture_output=True, text=True, timeout=100, check=False)
    assert found.returncode == 0, found.stderr[-2_000:]
    values, newest, done = json.loads(found.stdout)
    assert values == list(range(100))
    assert (newest, done) == (0, 200)
