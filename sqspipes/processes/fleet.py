"""Fleet: starts and watches the processes of a run, starts the dead again, and stops all in good order."""

from __future__ import annotations

import math
import multiprocessing
import queue
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import connection
from typing import Any

from sqspipes.brokers.base import Broker
from sqspipes.calls.error_text import describe
from sqspipes.engine.background import Background
from sqspipes.errors import OptionError, RunError, SqspipesError
from sqspipes.processes.member import Member, is_report
from sqspipes.processes.printed import Printed, Show
from sqspipes.processes.tally import Tally
from sqspipes.summary import Counts, Summary
from sqspipes.support import clocks, lines
from sqspipes.tasks.plan import RunPlan, described

logger = lines.logger(__name__)

#: Seconds beyond ``stop_timeout`` after which a process that was told to stop is killed.
GRACE_SECONDS = 10.0

#: A process that ends so often in a row before it is ready will never be.
MOST_STILLBORN = 3

#: Seconds between looks at processes that say nothing: what they started may keep their pipes open.
LOOK_SECONDS = 5.0

#: A request that is no stop: for the counts of the processes.
COUNTS = "counts"

#: Seconds between two questions for counts, while somebody reads them.
ASK_SECONDS = 1.0

#: Seconds for which the end waits for what the processes have printed.
PRINTED_SECONDS = 1.0

_GUARD = (
    "Every process imports the main module first: what starts the run belongs under "
    "\"if __name__ == '__main__':\""
)


class Fleet(Background):
    """A run in several processes; ``show`` is given what they print, instead of the terminal."""

    def __init__(
        self,
        broker: Broker,
        plan: RunPlan,
        domain: str,
        parcel: bytes,
        count: int,
        show: Show | None = None,
    ) -> None:
        if multiprocessing.current_process().daemon:
            raise OptionError("processes is given in a daemon of multiprocessing, which may start none")
        super().__init__(f"sqspipes run {domain}")
        self._plan = plan
        self._domain = domain
        self._url = broker.url
        self._stop_seconds = plan.stop_timeout + GRACE_SECONDS
        if not broker.limits.clean_interrupt:  # polls are let end
            self._stop_seconds = max(plan.stop_timeout, broker.limits.longest_answer) + GRACE_SECONDS
        self._printed = None if show is None else Printed(show)
        self._members = [Member(number, domain, parcel, self._printed) for number in range(1, count + 1)]
        self._tally = Tally([each.task.name for each in plan.plans])
        self._ask_due = 0.0
        self._counts = Counts()
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._woken, self._waker = multiprocessing.Pipe(duplex=False)
        self._stopping = False
        self._reason = "stopped"

    # What users do with it

    def start(self) -> Fleet:
        """Start the first process; the others follow when it is ready."""
        tasks = ", ".join(map(described, self._plan.plans))
        count = len(self._members)
        logger.info("%s runs on %s in %d processes: %s", self._domain, self._url, count, tasks)
        self._begin()
        return self

    @property
    def summary(self) -> Summary:
        """The counts of the processes that have reported, and the reason once the run is over."""
        return self._counts.summary(self._reason_or(self._reason))

    @property
    def by_task(self) -> dict[str, Summary]:
        """What the processes have told of each task, those that died included; who reads it has them asked again."""
        if clocks.monotonic() >= self._ask_due and self.live:
            self._ask_due = math.inf  # until they were asked
            self._ask(COUNTS)
        return self._tally.by_task(self._reason_or(self._reason))

    @property
    def outage(self) -> str | None:
        """What the broker of a process said last, while it does not answer."""
        return next((said for member in self._members if (said := member.outage) is not None), None)

    def _ask(self, what: str) -> None:
        self._requests.put(what)
        with suppress(OSError, ValueError):  # it is over, or wakes up already
            self._waker.send_bytes(b".")

    # Supervising

    def _supervise(self) -> None:
        try:
            self._watch()
            if self._printed is not None:
                self._printed.end(PRINTED_SECONDS)
            logger.info("%s: %s, %s", self._domain, self._reason_or(self._reason), self._counts)
        except BaseException as error:
            self._fail(RunError(f"the processes' supervisor died: {error!r}", part="supervisor"), error)
        finally:
            for member in self._members:
                member.kill()
            self._waker.close()
            self._woken.close()

    def _watch(self) -> None:
        """Start, hear and bury processes until the last one has ended after a stop."""
        while True:
            now = clocks.monotonic()
            for member in self._members:
                if not self._stopping and not member.alive and member.due <= now:
                    self._start(member)
                if member.alive and member.deadline <= now:
                    logger.warning("process %d did not end in time: it is killed", member.number)
                    member.kill()
            if self._stopping and not any(member.alive for member in self._members):
                return
            self._wait()
            for member in self._members:
                self._hear(member)

    def _start(self, member: Member) -> None:
        try:
            member.start()
        except OSError as error:  # no memory, too many processes or files
            self._bury(member, describe(error))

    def _wait(self) -> None:
        """Wait until a process says something or ends, is to be started or killed, or a stop is asked for."""
        waited = [self._woken, *(each for member in self._members for each in member.waited)]
        due = min(member.look for member in self._members) - clocks.monotonic()
        if self._woken in connection.wait(waited, max(0.0, min(LOOK_SECONDS, due))):
            self._woken.recv_bytes()
        with suppress(queue.Empty):
            while True:
                level = self._requests.get_nowait()
                if level == COUNTS:
                    self._ask_counts()
                    continue
                if level != "stop":
                    self._reason = "signal"
                self._tell(level)

    def _ask_counts(self) -> None:
        self._ask_due = clocks.monotonic() + ASK_SECONDS
        for member in self._members:
            member.ask()

    def _tell(self, level: str) -> None:
        """Pass a stop on to all processes; a signal after another stop is a hurry."""
        seconds, unready_seconds = self._stop_seconds, GRACE_SECONDS
        if self._stopping and level == "signal":
            level, seconds, unready_seconds = "hurry", GRACE_SECONDS, 0.0
        self._stopping = True
        for member in self._members:
            member.tell(level, clocks.monotonic() + (seconds if member.ready else unready_seconds))

    def _hear(self, member: Member) -> None:
        ending = member.ended()  # before it is heard: what it said last is there when it has ended
        for message in member.heard():
            if "counts" in message:
                self._tally.tell(member.number, message["counts"])
            if "ready" in message:
                self._open()
            elif is_report(message):
                self._take(member, message)
        if ending is not None:
            self._bury(member, ending)

    def _open(self) -> None:
        """Let the processes begin that waited for the first one to be ready."""
        for member in self._members[1:]:
            if not self._stopping and not member.alive and member.due == math.inf:
                member.due = 0.0

    def _take(self, member: Member, report: Mapping[str, Any]) -> None:
        """Take the report of a process that ends."""
        member.deadline = min(member.deadline, clocks.monotonic() + self._stop_seconds)
        if "error" in report:
            self._fail_in(member, report["error"])
            return
        self._counts += Counts.of(report)
        if self._stopping:
            return
        if report["reason"] == "drained":
            self._reason = "drained"
            self._tell("signal")
        elif report["reason"] == "stopped":  # a task has stopped the client that was sent to its process
            self._tell("stop")

    def _bury(self, member: Member, ending: str) -> None:
        """Take note of the end of a process, and have it started again unless all are to end."""
        member.bury()
        self._tally.bury(member.number)
        if self._stopping:
            if member.report is None and member.ready:
                logger.warning("process %d died (%s)", member.number, ending)
        elif member.report is not None:
            logger.info("process %d was stopped by a signal, restarting it", member.number)
            member.restart(died=False)
        elif member.stillborn >= MOST_STILLBORN or member.unguarded:
            part = f"process {member.number}"
            self._fail(RunError(f"{part} died ({ending}) before it was ready. {_GUARD}", part=part))
            self._tell("stop")
        else:
            logger.warning("process %d died (%s), restarting it", member.number, ending)
            member.restart(died=True)

    def _fail_in(self, member: Member, error: Mapping[str, str]) -> None:
        """Keep the error of a process, and stop the others."""
        part = f"process {member.number}"
        cause = SqspipesError(f"in {part}:\n{error['traceback']}") if error["traceback"] else None
        self._fail(RunError(f"{part}: {error['text']}", part=f"{part}: {error['part']}"), cause)
        self._tell("stop")

    def _fail(self, error: RunError, cause: BaseException | None = None) -> None:
        if self._error is None:
            error.__cause__ = cause
            self._error = error
            logger.error("%s ends: %s", self._domain, error)
