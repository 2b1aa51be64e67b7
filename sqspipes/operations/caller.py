"""Caller: calls functions in the thread that asks for it, outside a run."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sqspipes.support.forked import called
from sqspipes.tasks.plan import Plan

if TYPE_CHECKING:
    from sqspipes.calls.own_loop import OwnLoop


class Caller:
    """Calls functions here; as a context manager it tears steps down when the block is left.

    What is async runs on one event loop of its own: in this thread, or beside it where a loop runs here already.
    """

    def __init__(self) -> None:
        self._loop: OwnLoop | None = None
        self._called: dict[str, Plan] = {}

    def call(self, plan: Plan, *args: Any) -> Any:
        """Return what a task's function returns, which may have to be awaited."""
        self._called[plan.task.name] = plan
        return called(plan.function, *args)

    def awaited(self, made: Any) -> Any:
        """Return what something to be awaited gives, or a plain generator of what an async one yields."""
        if self._loop is None:
            from sqspipes.calls.own_loop import OwnLoop  # with asyncio, which is slow to import

            self._loop = OwnLoop()
        return self._loop.result(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for plan in self._called.values():
                left = plan.step.leave() if plan.step is not None else None
                if left is not None:
                    self.awaited(left)
        finally:
            if self._loop is not None:
                self._loop.close()
