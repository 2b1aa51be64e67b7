"""A pytest plugin: ``sqspipes_client(myapp.client)`` is a copy of a client on a memory broker of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqspipes.client import TaskClient


@pytest.fixture
def sqspipes_client() -> Iterator[Callable[[TaskClient], TaskClient]]:
    """A function from a client to its copy on a fresh memory broker; all copies are closed after the test."""
    with contextlib.ExitStack() as opened:

        def copied(client: TaskClient) -> TaskClient:
            return opened.enter_context(client.on_broker("memory://"))

        yield copied
