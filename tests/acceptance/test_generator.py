"""A generator that dies half-way and runs again in another order: nothing lost, nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sqspipes import TaskClient
from tests.acceptance.support import calls, drain_of, eventually, program


@pytest.mark.parametrize("broker_name", ["sqlite", "sqs"])
def test_generator_killed_after_two_outputs_repeats_none(
    domain: str, tmp_path: Path, broker_name: str, broker_arguments: Any
) -> None:
    arguments, journal = broker_arguments(broker_name), tmp_path / "journal"
    words = ["same", "same", *(f"word-{number}" for number in range(30))]
    drain = drain_of(arguments)
    client = TaskClient(domain, **arguments, lease=5.0).register_tasks(
        [{"name": "scatter"}, {"name": "gather"}]
    )
    with client:
        client.put(words)
        with program("scatter.py", domain, arguments, journal, drain=False, hang=True) as pipe:
            eventually(lambda: "scatter" in calls(journal), 30, "the generator hangs")
            # Two equal outputs and two of the set are in the next queue before the process dies.
            eventually(lambda: client.status().levels[1].waiting == 4, 30, "four outputs are safe")
            pipe.kill()
        with program("scatter.py", domain, arguments, journal, drain=drain, hang=False) as pipe:
            pipe.end(60)
    gathered = calls(journal)["gather"]
    assert gathered == {"same": 3, **{f"word-{number}": 1 for number in range(30)}}
