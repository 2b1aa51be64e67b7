"""Patience: a request is repeated while its broker cannot be reached, for as long as the caller wants to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from sqspipes.defaults import TIMEOUT
from sqspipes.errors import BrokerUnavailableError
from sqspipes.support import clocks, lines
from sqspipes.support.outage import BACKOFF

logger = lines.logger(__name__)

Result = TypeVar("Result")


def patiently(ask: Callable[[], Result], seconds: float = TIMEOUT) -> Result:
    """Return what a request answers, repeating it on ``BrokerUnavailableError`` for so many seconds."""
    deadline, tries = clocks.monotonic() + seconds, 0
    while True:
        try:
            return ask()
        except BrokerUnavailableError as error:
            tries += 1
            left = deadline - clocks.monotonic()
            if left <= 0:
                raise
            logger.debug("request failed, try %d, %.1f s left: %s", tries, left, error)
        threading.Event().wait(min(left, BACKOFF.seconds(tries)))
