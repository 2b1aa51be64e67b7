"""Run: one run in this process, as its user has it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from sqspipes.brokers.base import Broker
from sqspipes.calls import error_text
from sqspipes.engine.background import Background
from sqspipes.engine.engine import Engine
from sqspipes.engine.stream import Stream
from sqspipes.errors import RunError
from sqspipes.events import Stopped
from sqspipes.summary import Counts, Summary
from sqspipes.support import lines
from sqspipes.support.log_writer import log_writer
from sqspipes.tasks.plan import RunPlan, described

logger = lines.logger(__name__)

#: Seconds for which the end of a run waits for a log handler that is behind.
LOG_SECONDS = 1.0

#: What ended a run, and the reason that its summary gives.
_REASONS = {"drained": "drained", "signal": "signal", "interrupt": "signal"}


class Run(Background):
    """A run in this process. As a context manager it is stopped, in good order, when the block is left."""

    def __init__(self, broker: Broker, plan: RunPlan, domain: str) -> None:
        super().__init__(f"sqspipes run {domain}")
        self._broker = broker
        self._plan = plan
        self._domain = domain
        self._reason = "stopped"
        self._engine = Engine(broker, plan, domain, self.stop, self._note)

    @property
    def summary(self) -> Summary:
        """The counts so far, and the reason once the run is over."""
        return self._summed(self._engine.parts.tasks)

    @property
    def by_task(self) -> dict[str, Summary]:
        """The counts so far of each task of the run, in the order of the pipe."""
        return {name: self._summed([name]) for name in self._engine.parts.tasks}

    def _summed(self, tasks: Collection[str]) -> Summary:
        counts = [task.counts for name, task in self._engine.parts.tasks.items() if name in tasks]
        counts += [source.counts for source in self._engine.parts.sources if source.task in tasks]
        return sum(counts, Counts()).summary(self._reason_or(self._reason))

    @property
    def stream(self) -> Stream | None:
        """The results of the run on their way to whoever iterates over them."""
        return self._engine.parts.stream

    @property
    def outage(self) -> str | None:
        """What the broker's last failed request said, while it does not answer."""
        return self._engine.parts.requests.error

    def oldest_call(self, task: str) -> float | None:
        """Return the seconds that a task's oldest running call has been running here."""
        ages = [one.state.oldest_call() for name, one in self._engine.parts.tasks.items() if name == task]
        ages += [source.oldest_call() for source in self._engine.parts.sources if source.task == task]
        return max((age for age in ages if age is not None), default=None)

    def last_poll(self, queue_name: str) -> float | None:
        """Return when a queue was last received from here (monotonic clock), or None."""
        levels = [level for task in self._engine.parts.fed for level in task.admission.levels]
        return next((level.last_poll for level in levels if level.queue == queue_name), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.join()
        if error is None:
            self.wait()

    def start(self) -> Run:
        """Start all parts."""
        tasks = ", ".join(map(described, self._plan.plans))
        logger.info("%s runs on %s: %s", self._domain, self._broker.url, tasks)
        self._begin()
        return self

    def _ask(self, what: str) -> None:
        self._engine.tell(what)

    def _supervise(self) -> None:
        with log_writer.deferring(LOG_SECONDS):
            self._engine.run_to_the_end()
            if self._engine.has_left_undone:
                logger.warning(
                    "not everything could be settled in time: what is left comes back after its lease"
                )
            self._engine.parts.listeners.tell(Stopped(self._domain, self.summary, self._error))

    def _note(self, kind: str, detail: Any) -> None:
        """Keep the reason of the end, and the first error."""
        if kind == "dead":
            part, cause = detail
            said = f"{error_text.name_of(cause)}: {error_text.said(cause)}"
            self._fail(RunError(f"{part} died: {said}", part=part), cause)
        elif kind == "raised" and self._error is None:
            self._error = detail
        elif kind in _REASONS:
            self._reason = _REASONS[kind]

    def _fail(self, error: RunError, cause: BaseException) -> None:
        if self._error is None:
            error.__cause__ = cause
            self._error = error
            with suppress(BaseException):  # a log handler may be what died
                logger.error("%s ends: %s", self._domain, error)
