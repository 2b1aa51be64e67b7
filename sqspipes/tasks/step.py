"""Step: a task as a class, with hooks around each call and an instance of its own in every worker thread."""

from __future__ import annotations

import copy
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from sqspipes.errors import MissingKeyError, OptionError
from sqspipes.messages.values import let_go, typename
from sqspipes.support import lines
from sqspipes.support.forked import called, yielded

#: What a step may have besides ``consume``.
HOOKS = ("setup", "teardown", "before_consume", "after_consume", "rollback")


class StepLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A step's logger; called like a function it logs at INFO: ``self.log("fetched %s", url)``."""

    def __init__(self, name: str) -> None:
        super().__init__(lines.logger(name), {})

    def __call__(self, text: str, *args: Any) -> None:
        self.info(text, *args)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave everything as it is."""
        return msg, kwargs


class Step:
    """One step of a pipeline; ``consume`` gets each message's value, the rest is there to be overridden.

    The keys of a task are class attributes: ``workers``, ``priorities``, ``retries``, ``lease``, ``linger`` and
    so on. ``label`` is the task's name, the class's if there is none. Each worker thread makes an instance of its
    own. Where ``consume`` is ``async def`` hooks may be, too, and no two calls under way share an instance.
    """

    label: str | None = None

    #: The task's name, of an instance, unless the class has a name of its own.
    name: str

    #: Logs as ``sqspipes.<domain>.<label>``, ``%``-style.
    log: StepLog

    _produced: list[Any]

    def setup(self) -> Awaitable[None] | None:
        """Do what an instance needs once, in its thread, before its first call: open connections."""

    def teardown(self) -> Awaitable[None] | None:
        """Undo what ``setup`` did, in the same thread, once its run has ended."""

    def before_consume(self) -> Awaitable[None] | None:
        """Run before each call."""

    def consume(self, *args: Any) -> Any:
        """Handle one value, and ``produce``, return or yield what goes on."""
        raise NotImplementedError(f"{type(self).__name__} has no consume(self, instructions)")

    def after_consume(self, instructions: Any) -> Awaitable[None] | None:
        """Run after each call that succeeded."""

    def rollback(self, instructions: Any) -> Awaitable[None] | None:
        """Run after the last attempt failed, before the message is a dead letter.

        What it produces goes on, and the message counts as handled. What it raises becomes part of the letter.
        """

    def produce(self, value: Any) -> None:
        """Hand a value on, as it is now, when the call has succeeded; any number of times in a call."""
        self._produced.append(copy.deepcopy(value))


class Instructions(dict[str, Any]):
    """The value that a step gets, if it is a dict: a key that is missing is told with the step and the keys there."""

    __slots__ = ("_step",)

    def __init__(self, step: str, value: dict[str, Any]) -> None:
        super().__init__(value)
        self._step = step

    def __missing__(self, key: Any) -> Any:
        there = ", ".join(map(repr, self)) or "none"
        raise MissingKeyError(f"step {self._step}: there is no key {key!r}: the keys are {there}", key)

    def __reduce__(self) -> tuple[Any, ...]:
        return Instructions, (self._step, dict(self))


class Pending(NamedTuple):
    """What a call returned that is to be awaited first, and what follows from it, in the thread of the call."""

    made: Any
    then: Callable[[Any], Any]


class StepCall:
    """A step as the function of a task."""

    def __init__(self, step: type[Step], domain: str, label: str) -> None:
        self.step = step
        self.__name__ = label
        self._domain = domain
        self._threads = threading.local()
        signature = inspect.signature(step.consume)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        self._check_hooks(label)

    def _check_hooks(self, label: str) -> None:
        """Refuse hooks that nobody would await."""
        for hook in HOOKS:
            method = getattr(self.step, hook)
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise OptionError(f"step {label}: {hook} is async def and consume is not: allowed is def")
        self._check_no_hook_yields(label)

    def _check_no_hook_yields(self, label: str) -> None:
        """Refuse hooks that nobody would iterate over."""
        for hook in HOOKS:
            method = getattr(self.step, hook)
            if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
                raise OptionError(
                    f"step {label}: {hook} has a yield: allowed is a function that returns None"
                )

    @property
    def yields(self) -> bool:
        """Whether the step yields its values."""
        return inspect.isgeneratorfunction(self.step.consume)

    def __call__(self, *args: Any) -> Any:
        return self._call_later(args) if self.yields else self._call(args)

    def _call_later(self, args: tuple[Any, ...]) -> Iterator[Any]:
        """Call it when the first value is asked for."""
        yield from self._call(args)

    def _call(self, args: tuple[Any, ...]) -> Any:
        step = self._instance()
        args = self._given(args)
        instructions = args[0] if args else None
        step._produced = []
        has_run(called(step.before_consume))
        result = called(step.consume, *args)
        follow = partial(_consumed, step, instructions)
        if inspect.isawaitable(result) or isinstance(result, AsyncGenerator):  # of a wrapped ``async def``
            return Pending(result, follow)
        return follow(result)

    @property
    def rolls_back(self) -> bool:
        """Whether the step has a rollback of its own."""
        return self.step.rollback is not Step.rollback

    def rollback(self, value: Any) -> list[Any] | Awaitable[list[Any]] | Pending:
        """Roll one value back; return what the step produced."""
        step = self._instance()
        step._produced = []
        made: Any = called(step.rollback, *self._given((value,)))
        if inspect.isawaitable(made):
            return Pending(made, lambda _: step._produced)
        has_run(made)
        return step._produced

    def leave(self) -> Awaitable[None] | None:
        """Tear this thread's instance down, if it has one."""
        step, self._threads.step = getattr(self._threads, "step", None), None
        if step is not None:
            try:
                has_run(called(step.teardown))
            except BaseException as error:  # a SystemExit, too: its thread has more to end than the step
                step.log.exception("teardown of step %s failed", self.__name__)
                if (
                    isinstance(error, KeyboardInterrupt)
                    and threading.current_thread() is threading.main_thread()
                ):
                    raise
        return None

    def _given(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments as the step gets them: a dict tells what it misses."""
        if args and type(args[0]) is dict:
            return (Instructions(self.__name__, args[0]), *args[1:])
        return args

    def _instance(self) -> Step:
        found: Step | None = getattr(self._threads, "step", None)
        if found is None:
            found = self._made()
            has_run(called(found.setup))
            self._threads.step = found
        return found

    def _made(self) -> Step:
        """Return a new instance, which is not set up."""
        made = self.step.__new__(self.step)
        made.log = StepLog(f"sqspipes.{self._domain}.{self.__name__}")
        if not hasattr(self.step, "name"):
            made.name = self.__name__
        made._produced = []
        called(made.__init__)  # type: ignore[misc]
        return made

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.step, self._domain, self.__name__)

    def __repr__(self) -> str:
        return f"{self.step.__module__}.{self.step.__qualname__}"


def outputs(produced: list[Any], result: Any) -> Iterator[Any]:
    """Yield what was produced, and then what was returned."""
    yield from produced
    if result is not None:
        yield result


def has_run(made: Any) -> None:
    """Refuse what a hook returned where that is still to be run: nobody does."""
    if made is None:
        return
    if inspect.isawaitable(made) or inspect.isgenerator(made) or isinstance(made, AsyncGenerator):
        let_go(made)
        raise OptionError(
            f"a hook of a step returned {typename(made)}, which nobody would run: allowed is None"
        )


def _consumed(step: Step, instructions: Any, result: Any) -> Any:
    """Return what goes on after ``consume``: what it returned or yields, and what it produced."""
    if inspect.isgenerator(result):
        return _streamed(step, result, instructions)
    has_run(called(step.after_consume, instructions))
    return outputs(step._produced, result) if step._produced else result


def _streamed(step: Step, values: Iterator[Any], instructions: Any) -> Iterator[Any]:
    """Yield what a step yields, as it comes, and what it produced once all went well."""
    try:
        yield from yielded(values)
    finally:
        values.close()  # type: ignore[attr-defined]
    has_run(called(step.after_consume, instructions))
    yield from step._produced
