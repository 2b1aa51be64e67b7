"""Pipeline: a client declared as a class, with steps."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from sqspipes.client import TaskClient
from sqspipes.engine.iteration import Results
from sqspipes.engine.run import Run
from sqspipes.errors import OptionError
from sqspipes.processes.fleet import Fleet
from sqspipes.tasks.step import Step

#: The variable by which lineup found its Redis; it counts where no other says anything.
LINEUP = "LINEUP_REDIS_URI"

#: What lineup writes there: redis://database@host:port/password.
_OF_LINEUP = re.compile(r"redis://(?P<database>\d+)@(?P<server>[^/@]+)/?(?P<password>.*)")


class Pipeline:
    """Steps and functions, declared in order; the options are those of ``TaskClient``.

    ``name`` is the domain, the class's own name if there is none. ``steps`` holds Steps, functions and the dicts that
    ``register_tasks`` takes. ``output`` names a queue of its own for the last one's results, or a list ``rpush@key``.
    """

    name: str = ""
    steps: Sequence[type[Step] | Callable[..., Any] | Mapping[str, Any] | str] = ()
    output: str | None = None

    def __init__(self, **options: Any) -> None:
        if not self.steps:
            raise OptionError(
                f"{type(self).__name__}: steps is {self.steps!r}: allowed is a list with at least one"
            )
        self.name = self.name or type(self).__name__
        self.output = options.pop("output", self.output)
        broker = options.pop("broker", None) or os.environ.get("SQSPIPES_BROKER") or _broker_of_lineup()
        self.client = TaskClient(self.name, broker=broker, output=self.output, **options)
        self.client.register_tasks(list(self.steps))
        self.started = False  #: whether it runs here, and was not told to stop
        self._daemon: tuple[Any, Run | Fleet] | None = None
        self.initialize()

    def initialize(self) -> None:
        """Do what a pipeline needs once, when it is made."""

    @property
    def input(self) -> str:
        """The name of the queue that ``feed`` puts to, of level 0."""
        return self.client.tasks[0].queue(0)

    def feed(self, value: Any, **options: Any) -> str:
        """Put a value into the first step's queue, as ``TaskClient.put`` does; return its id."""
        return self.client.put(value, **options)

    def feed_many(self, values: Any, **options: Any) -> int:
        """Put many values, as ``TaskClient.put_many`` does; return how many."""
        return self.client.put_many(values, **options)

    def run(self, *args: Any, **options: Any) -> Any:
        """Run all steps, or those that are named, until stopped; the arguments and the result are a client's."""
        self.started = True
        try:
            return self.client.run(*args, **options)
        finally:
            self.started = self.is_running()

    def run_daemon(self, *args: Any, **options: Any) -> Run | Fleet:
        """Run in the background, until ``stop``; the arguments are those of ``TaskClient.start``.

        As long as that goes on, the same asked for again is the same run.
        """
        asked = (args, options)
        if self.started and self._daemon is not None and self._daemon[0] == asked and self._daemon[1].live:
            return self._daemon[1]
        run: Run | Fleet = self.client.start(*args, **options)
        self.started, self._daemon = True, (asked, run)
        return run

    def stop(self) -> None:
        """Ask what runs to stop in good order; returns at once, in a step too."""
        self.started = False
        self.client.stop()

    def is_running(self) -> bool:
        """Say whether this pipeline runs, in this process."""
        return self.client.is_running

    def get_result(self, timeout: float | None = None) -> Any:
        """Take one result from the output, acknowledged before it is returned; None if none came in time."""
        return self.client.get_result(timeout)

    def results(self, timeout: float | None = None) -> Results:
        """Iterate over the results in the output, each acknowledged when the next one is asked for."""
        return self.client.results(timeout)

    def close(self) -> None:
        """Stop what runs, in good order, and release connections and files."""
        self.started = False
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.client!r})"


def _broker_of_lineup() -> str | None:
    """Return the URL that is in lineup's variable, in our words if it is in lineup's."""
    url = os.environ.get(LINEUP)
    found = _OF_LINEUP.fullmatch(url) if url else None
    if found is None:
        return url
    password = f":{quote(found['password'], safe='')}@" if found["password"] else ""
    return f"redis://{password}{found['server']}/{found['database']}"
