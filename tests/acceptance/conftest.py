"""Marks the acceptance tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import leave_out

#: How often the same test of the pipe runs on SQS without ``--full``.
TIMES_ON_SQS = 5


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder; the hook sees the tests of all folders."""
    if not config.getoption("--full"):
        leave_out(config, items, _is_one_time_more_on_sqs)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.acceptance)


def _is_one_time_more_on_sqs(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return "sqs" in item.name and parameters.get("time", 0) >= TIMES_ON_SQS
