"""Patience: a request is repeated while its broker cannot be reached, for as long as the caller wants to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqspipes.errors import BrokerUnavailableError
from sqspipes.runner.outage import pause

#: Seconds for which a method of the client waits for its broker.
DEFAULT_SECONDS = 30.0

Result = TypeVar("Result")


def patiently(ask: Callable[[], Result], seconds: float = DEFAULT_SECONDS) -> Result:
    """Return what a request answers, repeating it on ``BrokerUnavailableError`` for so many seconds."""
    deadline, tries, resting = time.monotonic() + seconds, 0, threading.Event()
    while True:
        try:
            return ask()
        except BrokerUnavailableError:
            tries += 1
            wait = pause(tries)
            if time.monotonic() + wait > deadline:
                raise
        resting.wait(wait)
