"""AsyncStepCall: a step whose ``consume`` is ``async def``, as the function of a task."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqspipes.support.forked import Stepped, called
from sqspipes.tasks.step import Step, StepCall, has_run, outputs

if TYPE_CHECKING:
    import asyncio


class AsyncStepCall(StepCall):
    """A step that is called on an event loop; it returns a coroutine, or an async generator if it yields."""

    def __init__(self, step: type[Step], domain: str, label: str) -> None:
        super().__init__(step, domain, label)
        self._lock = threading.Lock()
        # Instances that no call has, of each loop; they are used on it alone.
        self._free: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Step]] = WeakKeyDictionary()

    def _check_hooks(self, label: str) -> None:
        """Take hooks of both kinds."""
        self._check_no_hook_yields(label)

    @property
    def yields(self) -> bool:
        """Whether the step yields its values."""
        return inspect.isasyncgenfunction(self.step.consume)

    def __call__(self, *args: Any) -> Any:
        given = self._given(args)
        return self._streamed_async(given) if self.yields else self._called(given)

    async def _called(self, args: tuple[Any, ...]) -> Any:
        async with self._lent() as step:
            await _ended(step.before_consume)
            result = step.consume(*args)
            while inspect.isawaitable(result):
                result = await Stepped(_awaited(result))
            if isinstance(result, AsyncGenerator):  # it uses the instance, which is ours only here
                step._produced[:0] = [value async for value in _each(result)]
                result = None
            await _ended(step.after_consume, args[0] if args else None)
            return outputs(step._produced, result) if step._produced else result

    async def _streamed_async(self, args: tuple[Any, ...]) -> AsyncIterator[Any]:
        async with self._lent() as step:
            await _ended(step.before_consume)
            async with aclosing(_each(step.consume(*args))) as values:
                async for value in values:
                    yield value
            await _ended(step.after_consume, args[0] if args else None)
            for value in step._produced:
                yield value

    async def rollback(self, value: Any) -> list[Any]:
        """Roll one value back; return what the step produced."""
        async with self._lent() as step:
            await _ended(step.rollback, *self._given((value,)))
            return step._produced

    async def leave(self) -> None:
        """Tear down this loop's instances, those that no call has."""
        import asyncio  # slow to import, and seldom needed

        free = self._free_here()
        steps, free[:] = list(free), []
        await asyncio.gather(*map(self._torn_down, steps))

    async def _torn_down(self, step: Step) -> None:
        import asyncio

        try:
            await _ended(step.teardown)
        except asyncio.CancelledError:
            raise
        except BaseException:  # a SystemExit would end the loop
            step.log.exception("teardown of step %s failed", self.__name__)

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Step]:
        """Give an instance that no other call has meanwhile."""
        free = self._free_here()
        if free:
            step = free.pop()
        else:
            step = self._made()
            await _ended(step.setup)
        step._produced = []
        try:
            yield step
        finally:
            free.append(step)

    def _free_here(self) -> list[Step]:
        import asyncio

        with self._lock:
            return self._free.setdefault(asyncio.get_running_loop(), [])


async def _awaited(made: Any) -> Any:
    """Return what something to be awaited gives."""
    return await made


async def _each(values: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Yield what an async generator yields; when it is closed, the generator is."""
    async with aclosing(values):
        while True:
            try:
                value = await Stepped(anext(values))
            except StopAsyncIteration:
                return
            yield value


async def _ended(hook: Callable[..., Any], *args: Any) -> None:
    """Run a hook, and wait for what it returned, if that is to be awaited."""
    made = called(hook, *args)
    has_run(await Stepped(_awaited(made)) if inspect.isawaitable(made) else made)
