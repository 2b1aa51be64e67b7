"""SIGTERM in the middle: running calls end, and nothing that was not started stays hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sqspipes import TaskClient
from tests.acceptance.support import calls, eventually, program, received_again

MESSAGES, WORKERS, SECONDS = 200, 10, 1.0


@pytest.mark.parametrize("broker_name", ["sqlite", "sqs"])
def test_sigterm_ends_with_the_running_calls_and_hides_nothing(
    domain: str, tmp_path: Path, broker_name: str, broker_arguments: Any, make_broker: Any
) -> None:
    arguments, journal = broker_arguments(broker_name), tmp_path / "journal"
    with TaskClient(domain, **arguments).register_tasks([{"name": "slow"}]) as client:
        client.put_many(range(MESSAGES))
    with program("slow.py", domain, arguments, journal) as pipe:
        eventually(lambda: len(calls(journal).get("ended", ())) > 2 * WORKERS, 30, "some calls have ended")
        seconds = pipe.terminate()
    bodies = received_again(make_broker(broker_name), f"{domain}--slow.fifo")
    # No poll was open: all workers were busy, and what one second needs beyond that was held already.
    assert seconds < SECONDS + 2
    journal_calls = calls(journal)
    assert journal_calls["begun"] == journal_calls["ended"]
    unfinished = {str(number) for number in range(MESSAGES)} - set(journal_calls["ended"])
    assert {str(json.loads(body)["value"]) for body in bodies} == unfinished
