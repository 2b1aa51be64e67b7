"""Listeners: functions of users that are told of events, after the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqspipes.events import Event
from sqspipes.support import checks, event_log, lines
from sqspipes.support.forked import called

logger = lines.logger(__name__)

Listener: TypeAlias = Callable[[Event], object]


class Listeners:
    """The listeners of one run. A listener that raises is told of the next event all the same."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self._failed: set[int] = set()

    @property
    def hears_calls(self) -> bool:
        """Whether somebody hears of each call."""
        return bool(self._listeners) or event_log.logs_calls()

    @property
    def hears_outputs(self) -> bool:
        """Whether somebody hears of each output that is handed on."""
        return bool(self._listeners)

    def tell(self, event: Event) -> None:
        """Log an event, and tell it to each listener in turn."""
        event_log.log(event)
        for number, listener in enumerate(self._listeners):
            try:
                called(listener, event)
            except BaseException as error:  # a SystemExit of a listener ends no run
                if number not in self._failed:
                    self._failed.add(number)
                    logger.warning(
                        "listener %s failed, and is told of the next events all the same: %s",
                        getattr(listener, "__qualname__", type(listener).__qualname__),
                        type(error).__name__,
                        exc_info=error,
                    )


def checked_listeners(option: str, given: Any) -> tuple[Listener, ...]:
    """Return the listeners that an option gives."""
    return checks.checked_callables(option, given, "a callable of an event")
