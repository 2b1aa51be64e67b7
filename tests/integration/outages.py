"""A broker between a client and another broker: it refuses requests, as one that cannot be reached."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sqspipes.brokers.base import Broker
from sqspipes.errors import BrokerUnavailableError

#: Says whether a request is refused, by its name and its queue.
Refuses = Callable[[str, str], bool]


def _passed_on(name: str) -> Any:
    def ask(self: Between, *args: Any, **options: Any) -> Any:
        queue = args[0] if args and isinstance(args[0], str) else ""
        with self.lock:
            refused = self.refuses(name, queue)
        if refused:
            raise BrokerUnavailableError("provoked by the test")
        return getattr(self.inner, name)(*args, **options)

    return ask


class Between(Broker):
    """Passes every request on, unless ``refuses`` says no."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner
        self.url = inner.url
        self.limits = inner.limits
        self.refuses: Refuses = lambda name, queue: False
        self.lock = threading.Lock()

    declare = _passed_on("declare")
    send = _passed_on("send")
    receive = _passed_on("receive")
    ack = _passed_on("ack")
    extend = _passed_on("extend")
    depth = _passed_on("depth")
    message_bytes = _passed_on("message_bytes")
    names = _passed_on("names")
    queue_url = _passed_on("queue_url")
    tags = _passed_on("tags")
    tag = _passed_on("tag")
    purge = _passed_on("purge")
    delete = _passed_on("delete")

    def interrupt(self) -> None:
        self.inner.interrupt()

    def close(self) -> None:
        self.inner.close()
