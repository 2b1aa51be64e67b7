"""TaskClient: the facade. It checks what users say, and has the parts do it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from sqspipes import settings
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker, Entry
from sqspipes.calls import perform
from sqspipes.calls.entries import message_entry
from sqspipes.calls.held import Origin
from sqspipes.calls.prioritized import prioritized
from sqspipes.client_runs import ClientRuns
from sqspipes.defaults import LEASE, ON_ERROR, RETRIES, STOP_TIMEOUT, STRICT, TIMEOUT
from sqspipes.engine.iteration import Results
from sqspipes.engine.run import Run
from sqspipes.errors import BrokerUnavailableError, OptionError
from sqspipes.messages.message import Message
from sqspipes.operations import control, put, redrive, status
from sqspipes.operations.caller import Caller
from sqspipes.operations.dead_letters import DeadLetters
from sqspipes.operations.output import check_place, check_readable, output_task, reading, taken
from sqspipes.operations.patience import patiently
from sqspipes.operations.put import DirectEngine, each, not_put, send_many, send_one, stopped
from sqspipes.operations.status import Status
from sqspipes.operations.trial import Trial
from sqspipes.support import checks
from sqspipes.support.forked import yielded
from sqspipes.support.listeners import Listener
from sqspipes.tasks import registration
from sqspipes.tasks.around import Around
from sqspipes.tasks.pipe import Pipe, TaskName, checked_priority
from sqspipes.tasks.task import Backoff, Task

Tasks = Sequence[Callable[..., Any] | Mapping[str, Any] | str]


class TaskClient(ClientRuns):
    """Chains functions over FIFO queues: one queue per task and priority level.

    Making a client and registering tasks touches no network. All methods are thread-safe. Option errors are
    ``OptionError``, which is a ``ValueError`` too. Seconds are a year at most; a timeout of more waits for ever.

    :param domain: the application's name; it begins the names of all its queues.
    :param aws_key: with ``aws_secret`` and ``aws_region``: an account. Without a key, credentials, profile and
        region are found as boto3 finds them.
    :param ignore_none: a task that returns None ends the line.
    :param fifo: must be True; the promises rest on FIFO queues.
    :param broker: a URL or a Broker; default the environment's ``SQSPIPES_BROKER``, else ``sqs://``.
    :param endpoint_url: an SQS-compatible server. ``session``: a boto3 session.
    :param transport: ``"lean"``, or ``"boto3"``: messages too go through boto3, for far more CPU time.
    :param create: make queues that are missing. With False no queue is ever made, changed or tagged, but by
        ``pause``, ``resume`` and ``stop_all``.
    :param high_throughput: make queues with SQS's high-throughput attributes.
    :param queue_attributes: further attributes of new queues. ``tags``: further tags.
    :param lease: seconds, 5 to 240, for which a message is this process's own; kept up while it is held.
    :param retries: how often a failed call is repeated before its message is a dead letter; None for ever.
    :param backoff: seconds between the tries, or a callable of (attempt, error); default 1 s, doubling, 300 s at
        most, with jitter.
    :param non_retryable: exception types that make a dead letter at once.
    :param on_error: ``"retry"``, or ``"raise"``: the first error stops the run and is raised in the caller.
    :param strict: serve a lower level only when all higher ones are empty; else it has one call in ten at least.
    :param linger: seconds, 0 to 10, that a message may wait at a hop for others to fill a request: fewer requests, a
        smaller bill. Default the broker's own: 0.05 on SQS, 0 on the embedded ones.
    :param stop_timeout: seconds that running calls get when a run stops.
    :param control_interval: seconds, 0.1 or more, between two looks of a run at what ``pause``, ``resume`` and
        ``stop_all`` say; None for no look at all. Default the broker's own: 60 on SQS, 2 on the others.
    :param json_default: as in ``json.dumps(default=)``; it is not asked about what is to be awaited.
    :param around: a function of (call_next, message) around each call of each task, or a list of them, the outermost
        first. ``call_next()`` makes the call and returns its result; ``message`` is that of ``current_message()``, a
        tuple of them for a batch, None for a source. Around an ``async def`` stands an ``async def``, around a
        generator function a generator function: where tasks are of several kinds, there is one for each.
    :param listeners: a function that is told of each event of a run, or a list of them; the events are in
        ``sqspipes.events``. Listeners are called in the run's own threads and hold these up: what takes long is to be
        left to another thread.
    :param output: the name of a queue of its own for the last task's results, which ``results`` reads; on Redis also
        ``rpush@key``, a plain list that they are pushed to as JSON.
    """

    def __init__(
        self,
        domain: str,
        aws_key: str | None = None,
        aws_secret: str | None = None,
        aws_region: str | None = None,
        ignore_none: bool = True,
        fifo: bool = True,
        *,
        broker: str | Broker | None = None,
        endpoint_url: str | None = None,
        session: Any = None,
        transport: str = "lean",
        create: bool = True,
        high_throughput: bool = True,
        queue_attributes: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        lease: float = LEASE,
        retries: int | None = RETRIES,
        backoff: Backoff = None,
        non_retryable: tuple[type[BaseException], ...] | type[BaseException] = (),
        on_error: str = ON_ERROR,
        strict: bool = STRICT,
        linger: float | None = None,
        stop_timeout: float = STOP_TIMEOUT,
        control_interval: float | Literal["auto"] | None = "auto",
        json_default: Callable[[Any], Any] | None = None,
        output: str | None = None,
        around: Around | Sequence[Around] = (),
        listeners: Listener | Sequence[Listener] = (),
    ) -> None:
        checked = settings.checked(locals())
        owns_broker = not isinstance(broker, Broker)
        if not isinstance(broker, Broker):
            broker = open_broker(settings.broker_url(broker), **checked.account)
        pipe = Pipe((), checked.ignore_none, json_default, around=checked.around)
        super().__init__(checked, pipe, broker, owns_broker=owns_broker)
        self.output = output

    # Tasks and queues

    def register_tasks(self, tasks: Tasks) -> TaskClient:
        """Set the tasks, in the order of the pipe; replaces what was registered, and returns the client.

        Each is a function, a Step, or a dict with the keys ``method``, ``name``, ``args``, ``workers``,
        ``priorities``, ``interval``, ``rate``, ``batch``, ``batch_wait``, ``lease``, ``retries``, ``backoff``,
        ``non_retryable``, ``on_error``, ``strict``, ``linger``, ``around``.
        """
        with self._lock:
            if self.is_running:
                raise OptionError("tasks cannot be registered while a run goes on: stop it first")
            self._pipe = replace(
                self._pipe,
                tasks=registration.make_tasks(
                    self.domain, tasks, self._settings.task_options, self._pipe.around
                ),
            )
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The registered tasks, in order."""
        return self._pipe.tasks

    def get_task_by_name(self, name_or_index: TaskName) -> Task:
        """Return a registered task, by its name or its place."""
        return self._pipe.named(name_or_index)

    @property
    def queue_names(self) -> list[str]:
        """The names of this client's queues, dead-letter queues too."""
        return [name for task in self._pipe.everything for name in task.every_queue]

    @property
    def queues(self) -> list[str]:
        """The URLs of this client's queues."""
        self.create_queues()
        return [patiently(partial(self._broker.queue_url, name)) for name in self.queue_names]

    def create_queues(self) -> None:
        """Make the queues that are missing, also those that were deleted since they were last seen."""
        self._queues.forget(self.queue_names)
        self._queues.declare(self._pipe.everything)

    def purge(self) -> None:
        """Delete all messages from this client's queues; SQS takes up to 60 s for it."""
        self._queues.purge(self.queue_names)

    def delete(self) -> None:
        """Delete this client's queues with all they hold; SQS frees the names after 60 s."""
        self._queues.delete(self.queue_names)

    # Putting

    def put(
        self,
        value: Any,
        *,
        task: TaskName | None = None,
        priority: int = 0,
        group: str | int | None = None,
        id: str | int | None = None,
        timeout: float = TIMEOUT,
    ) -> str:
        """Put a value into a task's queue, the first one's by default; return its id.

        Messages with one ``group`` and priority run in order. The same ``id`` again within five minutes (same
        task, priority and group) is accepted and not stored. Raises before anything is sent: ``EncodingError``,
        ``TooLargeError``, ``OptionError``; and ``BrokerUnavailableError`` after ``timeout`` seconds.
        """
        target = self._pipe.fed(0 if task is None else task)
        seconds = checks.checked_timeout("timeout", timeout)
        message, text = put.message_of(self._pipe, target, value, priority, group, id)
        try:
            self._queues.declare([target], seconds)
        except BrokerUnavailableError as error:
            raise not_put(error, message.id, seconds) from error
        queue = target.queue(message.priority)
        entry = message_entry(self._queues.size(queue), queue, message, text, "value")
        send_one(self._broker, queue, entry, message.id, seconds)
        return message.id

    def put_many(
        self,
        values: Iterable[Any],
        *,
        task: TaskName | None = None,
        priority: int | Callable[[Any], int] = 0,
        group: str | int | Callable[[Any], str | int | None] | None = None,
        id: Callable[[Any], str | int] | None = None,
        timeout: float = TIMEOUT,
    ) -> int:
        """Put many values, from any iterable, in full requests; return how many.

        ``group``, ``id`` and ``priority`` may be callables of the value. Raises ``PutError`` at a bad value: what
        came before it has been sent, in order; and when the broker stays away for ``timeout`` seconds. A request
        holds one message of a group: put values of many groups mixed, if they may be.
        """
        target = self._pipe.fed(0 if task is None else task)
        seconds = checks.checked_timeout("timeout", timeout)
        if id is not None and not callable(id):
            raise checks.refuse("id", id, "a callable of the value: many values cannot share one id")
        id_of, group_of, priority_of = (
            each(values, id, None),
            each(values, group, None),
            each(values, priority, 0),
        )
        try:
            self._queues.declare([target], seconds)
        except BrokerUnavailableError as error:
            raise stopped(error) from error

        def entries() -> Iterator[tuple[str, Entry]]:
            for value in yielded(values):
                message, text = put.message_of(
                    self._pipe, target, value, priority_of(value), group_of(value), id_of(value)
                )
                queue = target.queue(message.priority)
                yield queue, message_entry(self._queues.size(queue), queue, message, text, "value")

        return send_many(self._broker, entries, seconds, target.linger)

    def submit(self, args: Sequence[Any] = (), priority: int | Callable[[Any], int] = 0) -> None:
        """Call the source once, here and now, and hand its outputs on; ``args`` replaces the task's own.

        ``priority`` is that of what it returns, or a callable of each value that goes on.
        """
        first = self.get_task_by_name(0)
        source = replace(first, args=tuple(args)) if args else first
        check_place(self._pipe.output, self._broker)
        self._queues.declare(self._pipe.everything[1:])
        plan = self._pipe.plan(source)
        level_of = priority if callable(priority) else None
        id = uuid.uuid4().hex
        level = 0 if callable(priority) else checked_priority(priority)
        parent = Message(id, None, priority=level, identity=id)
        with Caller() as caller:
            engine = DirectEngine(
                self._broker, self._pipe.reachable, self._queues.sizes, TIMEOUT, caller.awaited
            )
            result = prioritized(plan, caller.call(plan, *source.args), level_of, engine)
            perform.hand_on(plan, Origin(), parent, result, engine)

    def call(self, value: Any, *, task: TaskName | None = None) -> list[Any]:
        """Run the whole pipe for one value in this thread, without a broker; return what the last task returned.

        Every hand-off is written and read as between machines. The value goes to the first task that takes one, by
        default. What a task raises is raised here, at the first attempt.
        """
        first = int(bool(self.tasks) and self.tasks[0].is_source)  # that makes its values itself
        target = self._pipe.fed(first if task is None else task)
        message, text = put.message_of(self._pipe, target, value, 0, None, None)
        return Trial(self._pipe).run(target, message, text)

    # The output

    @property
    def output(self) -> str | None:
        """The name of the queue, or the list, for the last task's results; to be changed before a run."""
        return None if self._pipe.output is None else self._pipe.output.name.partition("--")[2]

    @output.setter
    def output(self, name: str | None) -> None:
        with self._lock:
            if self.is_running:
                raise OptionError("output cannot be changed while a run goes on: stop it first")
            found = None if name is None else output_task(self.domain, name, **self._settings.task_options)
            check_place(found, self._broker)
            self._pipe = replace(self._pipe, output=found)

    def results(self, timeout: float | None = None) -> Results:
        """Iterate over the results in the output's queue, each acknowledged when the next one is asked for.

        It ends when nothing came for ``timeout`` seconds; with None it waits for ever.
        """
        plan = reading(self._output(), self._settings.stop_timeout)
        run = self._run(replace(plan, sizes=self._queues.sizes))
        assert run.stream is not None
        seconds = math.inf if timeout is None else checks.checked_timeout("timeout", timeout)
        results = Results(run, run.stream, seconds)
        run.start()
        return results

    def get_result(self, timeout: float | None = None) -> Any:
        """Take one result from the output's queue, acknowledged before it is returned: None if none came in time."""
        seconds = None if timeout is None else checks.checked_timeout("timeout", timeout)
        found = taken(self._broker, self._output(), seconds)
        return None if found is None else found[0]

    def _output(self) -> Task:
        """Return the task that stands for the output, its queues made."""
        output = self._pipe.output
        if output is None:
            raise OptionError("this client has no output: give it one, TaskClient(..., output='results')")
        check_readable(output)
        self._queues.declare([output])
        return output

    # The control word

    def pause(self, *tasks: TaskName) -> None:
        """Have tasks take nothing in, on every machine, until they are resumed; all tasks if none is named.

        What they hold already is finished, and a source makes no value. Runs that begin later obey as well. Raises
        ``QueueMissingError`` where the client's queues were not made yet.
        """
        control.pause(self._broker, self._pipe, tasks)

    def resume(self, *tasks: TaskName) -> None:
        """Let paused tasks go on, on every machine; all tasks if none is named."""
        control.resume(self._broker, self._pipe, tasks)

    def stop_all(self) -> None:
        """Have every run of this client stop in good order, on every machine; those that begin later run on."""
        control.stop_all(self._broker, self._pipe)

    # Watching and mending

    def status(self) -> Status:
        """Return what waits, what is under way and what died, per task and level."""
        pipe, there = self._pipe, status.listed(self._broker, self.domain)
        self._queues.declare(
            task for task in pipe.everything if there is None or not there.issuperset(task.every_queue)
        )
        runs = [run for run in self._runs if isinstance(run, Run) and run.live]
        return status.look(self._broker, pipe.everything, runs, pipe.control_queue, there or ())

    def dead_letters(self, task: TaskName | None = None) -> DeadLetters:
        """Iterate over the dead letters of one task, or of all that are registered.

        A name may also be that of a task that was registered once: its letters are listed as long as its queue of
        dead letters is there. Listing hides letters from other listings while it runs, 60 s at most, and gives them
        back; it sends and deletes nothing. ``whole`` of what is returned says at the end whether that was all.
        """
        return DeadLetters(
            self._broker, redrive.chosen(self._broker, self.domain, self._pipe, self._queues, task)
        )

    def redrive(
        self, task: TaskName | None = None, ids: Collection[str] | None = None, *, to: TaskName | None = None
    ) -> int:
        """Send dead letters back to their old place, group and level, with fresh attempts; return how many.

        All of a task, or of all tasks, or those with the given ids or keys, until each is found, as often as it is
        named: letters of several groups may share an id, a key is one letter's own. ``to`` names another task
        that gets them; letters of a task that is not registered any more go nowhere else.
        """
        wanted = redrive.checked_ids(ids)
        if to is not None and task is None:
            raise OptionError(f"to is {to!r}: it goes with a task, the one whose dead letters are sent there")
        target = None if to is None else self._pipe.fed(to)
        chosen = redrive.chosen(self._broker, self.domain, self._pipe, self._queues, task)
        for one in chosen:
            if target is None and one.index < 0:
                raise OptionError(
                    f"task {one.name!r} is not registered: say to=, the task that gets its letters"
                )
        self._queues.declare([] if target is None else [target])
        return sum(redrive.redrive(self._broker, one, target or one, wanted, TIMEOUT) for one in chosen)

    def discard(self, task: TaskName, ids: Collection[str] | Literal["all"]) -> int:
        """Delete dead letters of a task for good, those with the given ids or keys, or ``"all"``; return how many."""
        if ids is None:
            raise checks.refuse("ids", ids, "a list of ids, or 'all'")
        wanted = None if ids == "all" else redrive.checked_ids(ids)
        chosen = redrive.chosen(self._broker, self.domain, self._pipe, self._queues, task)
        return sum(redrive.discard(self._broker, one, wanted) for one in chosen)

    def __repr__(self) -> str:
        tasks = [task.name for task in self.tasks]
        return f"TaskClient({self.domain!r}, broker={self._broker.url!r}, tasks={tasks})"
