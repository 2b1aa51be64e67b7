"""The example of a broker keeps what the suite for authors of brokers asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.folder_broker import FolderBroker
from sqspipes.brokers import Broker
from sqspipes.testing.broker_contract import *  # noqa: F403
from sqspipes.testing.broker_contract.steps import Another

pytestmark = pytest.mark.once


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Another]:
    """A function that opens one more broker on the test's folder; all are closed after the test."""
    with contextlib.ExitStack() as opened:

        def open_one() -> Broker:
            return opened.enter_context(contextlib.closing(FolderBroker(f"folder://{tmp_path}")))

        yield open_one
