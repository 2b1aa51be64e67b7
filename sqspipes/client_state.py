"""ClientState: what a client is made of, what it was told, and how it goes to another process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker
from sqspipes.engine.living import Living
from sqspipes.engine.run import Run
from sqspipes.errors import OptionError
from sqspipes.operations.queues import Queues
from sqspipes.processes.fleet import Fleet
from sqspipes.settings import Settings
from sqspipes.tasks.pipe import Pipe, RunOptions


class ClientState:
    """A client's settings, tasks, runs and broker; ``TaskClient`` is what users have of it."""

    def __init__(self, checked: Settings, pipe: Pipe, broker: Broker, *, owns_broker: bool) -> None:
        self._settings = checked
        self._pipe = pipe
        self._lock = threading.RLock()
        self._runs: Living[Run | Fleet] = Living()
        self._owns_broker = owns_broker
        self._broker = broker
        self._queues = Queues(broker, checked.new_queues, {})

    @property
    def domain(self) -> str:
        """The application's name, which begins the names of all its queues."""
        return self._settings.domain

    @property
    def control_interval(self) -> float | None:
        """The seconds between two looks of a run at the control word; None if there are none."""
        if self._settings.control_interval == "auto":
            return self._broker.limits.control_interval
        return self._settings.control_interval

    @property
    def is_running(self) -> bool:
        """Whether a run of this client goes on, in this process."""
        return any(run.live for run in self._runs)

    def stop(self) -> None:
        """Ask all runs of this client to stop in good order; returns at once, from a task too."""
        for run in self._runs:
            if run.live:
                run.stop()

    def close(self) -> None:
        """Stop what runs, in good order, and release connections and files."""
        for run in self._runs:
            if run.live:
                run.stop()
                run.join()
        if self._owns_broker:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # In other processes

    def _travelling(self, options: RunOptions) -> Iterator[tuple[str, Any]]:
        """Yield what may be unable to go to another process, with its name."""
        for task in self._pipe.tasks:
            for field in fields(task):
                yield f"task {task.name!r}: {field.name}", getattr(task, field.name)
        yield from self._settings.task_options.items()
        yield "json_default", self._pipe.json_default
        yield "around", self._settings.around
        yield "listeners", self._settings.listeners
        yield "session", self._settings.account["session"]
        yield "args", options.args
        yield "priority", options.priority
        yield "prepare", options.prepare

    def on_broker(self, broker: str) -> Self:
        """Return a copy of this client, with the same tasks and options, on another broker."""
        copy = type(self).__new__(type(self))
        copy.__setstate__({**self._state(), "url": broker})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; it opens the broker itself."""
        if not self._owns_broker:
            raise OptionError("broker is an object: give its URL, so that each process can open its own")
        if self._broker.url == "memory://":
            raise OptionError(
                "broker is memory://, queues in one process: allowed are sqlite://, redis:// and sqs://"
            )
        return {**self._state(), "url": self._broker.full_url, "seen": self._queues.sizes}

    def _state(self) -> dict[str, Any]:
        """Return all but what belongs to this process and its broker."""
        own = ("_lock", "_runs", "_broker", "_queues", "_owns_broker")
        return {key: value for key, value in vars(self).items() if key not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        url, seen = state.pop("url"), state.pop("seen", {})
        vars(self).update(state)
        self._lock, self._runs, self._owns_broker = threading.RLock(), Living(), True
        self._broker = open_broker(url, **self._settings.account)
        self._queues = Queues(self._broker, self._settings.new_queues, seen)
