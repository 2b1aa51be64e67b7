"""The contract holds on every broker, and on SQS by either transport."""

from __future__ import annotations

import pytest

from tests.conftest import BROKERS, TRANSPORTS, named


@pytest.fixture(params=sorted({*BROKERS, *TRANSPORTS}))
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker's name in turn."""
    return named(request)
