"""A process of the pipe one, two, three that kills itself with -9 at a point; else it is like ``worker.py``.

Here two yields its value, and three returns it with a callback. Further settings (JSON): ``point``, a list of
action and moment: ``send``, ``ack``, ``extend`` or ``receive`` and ``before``, ``in`` (its transaction) or
``after``, on SQLite; ``call``, ``yield`` or ``callback`` and ``after``. ``spared``: how often the point is passed
before. Leases may be shorter than users may choose.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import worker

from sqspipes import TaskCallback, TaskClient, defaults
from sqspipes.brokers.base import Answer, Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.brokers.sqlite.store import Store
from sqspipes.messages.message import Delivery

T = TypeVar("T")

logger = logging.getLogger("dying")
settings = worker.settings
POINT = tuple(settings.get("point") or ())
passes = itertools.count()


def passing(action: str, moment: str) -> None:
    """Die here, if here is where to die."""
    if (action, moment) == POINT and next(passes) >= settings.get("spared", 0):
        os.kill(os.getpid(), signal.SIGKILL)


class Mortal(SqliteBroker):
    """Passes a point before each request, in its transaction and after it."""

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        return self._around("send", lambda: super(Mortal, self).send(queue, entries))

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        return self._around("ack", lambda: super(Mortal, self).ack(queue, receipts))

    def extend(self, queue: str, leases: Sequence[tuple[str, float]]) -> list[Answer]:
        return self._around("extend", lambda: super(Mortal, self).extend(queue, leases))

    def receive(self, queue: str, **options: Any) -> list[Delivery]:
        deliveries = super().receive(queue, **options)
        if deliveries:
            passing("receive", "after")
        return deliveries

    def _around(self, action: str, request: Callable[[], T]) -> T:
        passing(action, "before")
        with self._dying_in(action) if (action, "in") == POINT else contextlib.nullcontext():
            answer = request()
        passing(action, "after")
        return answer

    @contextlib.contextmanager
    def _dying_in(self, action: str) -> Iterator[None]:
        """Pass the point when all is written and not yet committed."""
        store: Store = self._opened()
        write = type(store).write

        def doomed(work: Callable[[Any], Any], *further: Any) -> Any:
            return write(store, lambda transaction: (work(transaction), passing(action, "in"))[0], *further)

        store.write = doomed  # type: ignore[method-assign]
        try:
            yield
        finally:
            del store.write


def one(value: dict[str, Any]) -> dict[str, Any]:
    passing("call", "after")
    return worker.one(value)


def two(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield worker.noted("two", value)
    passing("yield", "after")


def three(value: dict[str, Any]) -> TaskCallback:
    return TaskCallback(worker.three(value), passing, ("callback", "after"))


def pipe() -> TaskClient:
    arguments = dict(settings["arguments"])
    if arguments["broker"].startswith("sqlite:"):
        arguments["broker"] = Mortal(arguments["broker"])
    client = TaskClient(settings["domain"], **arguments, **settings.get("options", {}))
    tasks: list[Any] = [
        {"method": method, "workers": settings.get("workers", 4), "priorities": settings.get("levels", 1)}
        for method in (one, two, three)
    ]
    return client.register_tasks([*tasks, {"name": "results"}])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    defaults.SHORTEST_LEASE = 1.0
    with (
        contextlib.suppress(KeyboardInterrupt),
        pipe() as client,
        client.start(["one", "two", "three"]) as run,
    ):
        run.wait()
