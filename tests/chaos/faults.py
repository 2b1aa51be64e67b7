"""Faults for the parts of a run: a bad call of the broker, a thread that cannot start, a part that raises."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes import Broker


class UnexpectedError(RuntimeError):
    """What nobody expected."""


class Switch:
    """Raises at the ``at``-th call that ``when`` says yes to, and at all that come after it."""

    def __init__(self, at: int = 1, when: Callable[[], bool] = lambda: True) -> None:
        self._calls, self._at, self._when = itertools.count(1), at, when
        self.on = True
        self.raised = threading.Event()

    def __call__(self, *_: Any) -> None:
        if self.on and self._when() and next(self._calls) >= self._at:
            self.raised.set()
            raise UnexpectedError("nobody expected this")


def _passed_on(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        if name == self.method:
            self.switch()
        return getattr(self.real, name)(*args, **options)

    return call


def faulty(real: Broker, method: str, switch: Switch) -> Broker:
    """Return a real broker, one method of which raises when the switch does."""
    methods = {name: _passed_on(name) for name in Broker.__abstractmethods__}
    broker = type("FaultyBroker", (Broker,), methods)()
    broker.url, broker.limits = real.url, real.limits
    broker.real, broker.method, broker.switch = real, method, switch
    found: Broker = broker
    return found


def breaking(patch: pytest.MonkeyPatch, owner: type, method: str, switch: Switch) -> None:
    """Let a method of one of the parts raise when the switch does."""
    real = getattr(owner, method)

    def call(*args: Any, **options: Any) -> Any:
        switch(*args)
        return real(*args, **options)

    patch.setattr(owner, method, call)


def no_thread(patch: pytest.MonkeyPatch, begins: str, switch: Switch) -> None:
    """Let the threads whose names begin so not start, as on a machine that has no more of them."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith(begins):
            switch()
        real(self)

    patch.setattr(threading.Thread, "start", start)
