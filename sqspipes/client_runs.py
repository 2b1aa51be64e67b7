"""ClientRuns: a client's runs, in this process or in several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

from sqspipes.client_state import ClientState
from sqspipes.defaults import MOST_PROCESSES, TIMEOUT
from sqspipes.engine.iteration import Results
from sqspipes.engine.run import Run
from sqspipes.engine.signals import foreground
from sqspipes.errors import BrokerUnavailableError, OptionError
from sqspipes.operations.output import check_place
from sqspipes.operations.queues import Queues
from sqspipes.processes import child, travel
from sqspipes.processes.fleet import Fleet
from sqspipes.processes.printed import Show
from sqspipes.summary import Summary
from sqspipes.support import checks
from sqspipes.support.forked import called
from sqspipes.tasks.callables import kind_of
from sqspipes.tasks.pipe import RunOptions, TaskName
from sqspipes.tasks.plan import RunPlan


class ClientRuns(ClientState):
    """Runs a client's tasks."""

    @overload
    def run(
        self,
        task_name: TaskName | Sequence[TaskName] | None = ...,
        args: Sequence[Any] | None = ...,
        priority: int | Callable[[Any], int] = ...,
        iterate: Literal[False] = ...,
        workers: int | None = ...,
        min_priority: int | None = ...,
        max_priority: int | None = ...,
        *,
        drain: bool | float = ...,
        stop_timeout: float | None = ...,
        processes: int | None = ...,
        prepare: Callable[[], object] | None = ...,
    ) -> Summary: ...

    @overload
    def run(
        self,
        task_name: TaskName | Sequence[TaskName] | None = ...,
        args: Sequence[Any] | None = ...,
        priority: int | Callable[[Any], int] = ...,
        *,
        iterate: Literal[True],
        workers: int | None = ...,
        min_priority: int | None = ...,
        max_priority: int | None = ...,
        drain: bool | float = ...,
        stop_timeout: float | None = ...,
    ) -> Results: ...

    def run(
        self,
        task_name: TaskName | Sequence[TaskName] | None = None,
        args: Sequence[Any] | None = None,
        priority: int | Callable[[Any], int] = 0,
        iterate: bool = False,
        workers: int | None = None,
        min_priority: int | None = None,
        max_priority: int | None = None,
        *,
        drain: bool | float = False,
        stop_timeout: float | None = None,
        processes: int | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Summary | Results:
        """Run tasks: one by name or place, a list of them, or all; blocks, and returns a ``Summary``.

        ``args`` and ``workers`` replace the task's own. ``priority`` is that of what a source produces, or a
        callable of it. ``min_priority`` and ``max_priority``: serve only these levels. ``drain=True`` ends when
        everything has gone through; a number sets the seconds between the two looks at empty queues.
        ``stop_timeout`` replaces the client's.
        ``iterate=True`` returns ``Results`` instead, an iterator over what the last of the chosen tasks returns.

        SIGTERM and SIGINT stop the run in good order; after SIGINT ``KeyboardInterrupt`` is raised. Raises
        ``SignatureError`` before anything starts, ``RunError`` when a part died.

        ``processes``: run the tasks in so many processes of this machine, each with these ``workers``, started anew
        when they die. Sources run in the first one; sources alone have one process. Each process imports the main
        module, so what starts the run belongs under ``if __name__ == "__main__":``. The ``Summary`` has the counts of
        all but those that died. An error of one stops all, and is a ``RunError`` with its text and traceback.
        ``prepare`` is called first in each process, to set up its log for instance.
        """
        options = RunOptions(
            task_name,
            args,
            priority,
            iterate,
            workers,
            min_priority,
            max_priority,
            drain,
            stop_timeout,
            prepare,
        )
        run = self._made(options, processes)
        if isinstance(run, Run) and run.stream is not None:
            results = Results(run, run.stream)
            run.start()
            return results
        with foreground(run):
            run.start()
            return run.wait()

    @overload
    def start(
        self,
        task_name: TaskName | Sequence[TaskName] | None = ...,
        args: Sequence[Any] | None = ...,
        priority: int | Callable[[Any], int] = ...,
        workers: int | None = ...,
        min_priority: int | None = ...,
        max_priority: int | None = ...,
        *,
        drain: bool | float = ...,
        stop_timeout: float | None = ...,
    ) -> Run: ...

    @overload
    def start(
        self,
        task_name: TaskName | Sequence[TaskName] | None = ...,
        args: Sequence[Any] | None = ...,
        priority: int | Callable[[Any], int] = ...,
        workers: int | None = ...,
        min_priority: int | None = ...,
        max_priority: int | None = ...,
        *,
        drain: bool | float = ...,
        stop_timeout: float | None = ...,
        processes: int,
        prepare: Callable[[], object] | None = ...,
        show: Show | None = ...,
    ) -> Fleet: ...

    def start(
        self,
        task_name: TaskName | Sequence[TaskName] | None = None,
        args: Sequence[Any] | None = None,
        priority: int | Callable[[Any], int] = 0,
        workers: int | None = None,
        min_priority: int | None = None,
        max_priority: int | None = None,
        *,
        drain: bool | float = False,
        stop_timeout: float | None = None,
        processes: int | None = None,
        prepare: Callable[[], object] | None = None,
        show: Show | None = None,
    ) -> Run | Fleet:
        """Run tasks in the background: the arguments of ``run``; returns a ``Run`` at once.

        With ``processes`` it returns a ``Fleet``, which has the same methods; it is started below
        ``if __name__ == "__main__":``, as with ``run``. ``show`` is called then with the lines that the processes
        print, some at a time; without it they print as any process does.
        """
        options = RunOptions(
            task_name,
            args,
            priority,
            False,
            workers,
            min_priority,
            max_priority,
            drain,
            stop_timeout,
            prepare,
        )
        if show is not None and (processes is None or not callable(show)):
            raise checks.refuse("show", show, "a callable of lines, with processes")
        return self._made(options, processes, show).start()

    def _made(self, options: RunOptions, processes: int | None, show: Show | None = None) -> Run | Fleet:
        """Return a run as it is asked for, in this process or in several, not yet started."""
        prepare: Any = options.prepare
        if prepare is not None and (processes is None or not callable(prepare) or kind_of(prepare).is_async):
            raise checks.refuse("prepare", prepare, "a callable that is not async, with processes")
        if processes is None:
            return self._run(self._checked(options))
        return self._fleet(processes, options, show)

    def _checked(self, options: RunOptions, seconds: float = TIMEOUT) -> RunPlan:
        """Check all that a run is asked for, make its queues, and return it as a plan."""
        check_place(self._pipe.output, self._broker)
        plan = self._pipe.run_plan(options, self._settings.stop_timeout)
        self._queues.declare(self._pipe.everything, seconds)
        return replace(
            plan,
            control_interval=self.control_interval,
            sizes=self._queues.sizes,
            listeners=self._settings.listeners,
        )

    def _run(self, plan: RunPlan) -> Run:
        """Return a run, not yet started."""
        with self._lock:
            run = Run(self._broker, plan, self.domain)
            self._runs.add(run)
        return run

    def _fleet(self, count: Any, options: RunOptions, show: Show | None = None) -> Fleet:
        """Check that a run can be one of several processes, and return it, not yet started."""
        checks.checked_int("processes", count, 1, MOST_PROCESSES)
        if options.iterate is not False:
            raise OptionError(
                f"iterate is {options.iterate!r}: allowed with processes is False, one process reads"
            )
        child.refuse_unguarded()
        travel.packed(
            (self, options), self._travelling(options)
        )  # what cannot go is named before any request
        plan = self._checked(options)
        parcel = travel.packed(
            (self, options), self._travelling(options)
        )  # now with what is known of the queues
        with self._lock:
            fleet = Fleet(self._broker, plan, self.domain, parcel, count if plan.fed() else 1, show)
            self._runs.add(fleet)
        return fleet

    def _share(self, options: RunOptions, first: bool) -> Run:
        """Return the run of one of several processes: the first has the whole plan."""
        if options.prepare is not None:
            called(options.prepare)
        known = self._queues
        self._queues = Queues(self._broker, self._settings.new_queues, {})
        try:
            plan = self._checked(options, 0.0)
        except BrokerUnavailableError:
            # The process that started this one has seen the queues: the run itself waits for the broker.
            self._queues = known
            plan = self._checked(options, math.inf)
        return self._run(plan if first else plan.beside())
