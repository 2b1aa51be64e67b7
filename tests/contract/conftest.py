"""The contract holds on every broker, and on SQS by either transport."""

from __future__ import annotations

import pytest

from tests.conftest import BROKERS, TRANSPORTS, leave_out, named


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave SQS through boto3 to ``--full``."""
    if not config.getoption("--full"):
        leave_out(config, items, lambda item: "sqs_boto3" in item.name and "contract" in item.path.parts)


@pytest.fixture(params=sorted({*BROKERS, *TRANSPORTS}))
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker's name in turn."""
    return named(request)
