"""What a broker promises, as a suite of pytest: for whoever writes a broker.

::

    import pytest
    from sqspipes.testing.broker_contract import *

    @pytest.fixture
    def another(tmp_path):
        opened = []

        def open_one():
            opened.append(FolderBroker(f"folder://{tmp_path}"))
            return opened[-1]

        yield open_one
        for broker in opened:
            broker.close()

``another()`` opens one more broker on the store of the test, which is a store of its own for each test. The suite has
a fixture ``broker``, the first one, and ``domain``, a name that begins the names of the test's queues. Where a broker
differs on purpose, mark the test as an expected failure, with the reason.
"""

from __future__ import annotations

import uuid

import pytest

from sqspipes.brokers.base import Broker
from sqspipes.testing.broker_contract.dead_letters import *  # noqa: F403
from sqspipes.testing.broker_contract.deduplication import *  # noqa: F403
from sqspipes.testing.broker_contract.ids import *  # noqa: F403
from sqspipes.testing.broker_contract.interrupt import *  # noqa: F403
from sqspipes.testing.broker_contract.leases import *  # noqa: F403
from sqspipes.testing.broker_contract.messages import *  # noqa: F403
from sqspipes.testing.broker_contract.order import *  # noqa: F403
from sqspipes.testing.broker_contract.queues import *  # noqa: F403
from sqspipes.testing.broker_contract.sharing import *  # noqa: F403
from sqspipes.testing.broker_contract.steps import Another
from sqspipes.testing.broker_contract.tags import *  # noqa: F403


@pytest.fixture
def broker(another: Another) -> Broker:
    """A broker on a store with nothing in it."""
    return another()


@pytest.fixture
def domain() -> str:
    """A domain that no other test has."""
    return f"test_{uuid.uuid4().hex[:12]}"
