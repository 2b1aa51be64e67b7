"""What a broker promises, on every broker of ours: the suite that authors of brokers have, too."""

from __future__ import annotations

from functools import partial

import pytest

from sqspipes.testing.broker_contract import *  # noqa: F403
from sqspipes.testing.broker_contract.steps import Another
from tests.conftest import MakeBroker


@pytest.fixture
def another(broker_name: str, make_broker: MakeBroker) -> Another:
    """A function that opens one more broker on the test's store."""
    return partial(make_broker, broker_name)
