"""Callables: what a task's function is, found out once."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqspipes.errors import OptionError
from sqspipes.tasks.async_step import AsyncStepCall
from sqspipes.tasks.step import StepCall

#: Annotations may name what is there for type checkers alone: from Python 3.14 on they would be evaluated.
_AS_WRITTEN: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    import annotationlib

    _AS_WRITTEN["annotation_format"] = annotationlib.Format.FORWARDREF


@dataclass(frozen=True, slots=True)
class CallableKind:
    """What a callable is: ``async def`` or not, a generator function or not."""

    is_async: bool
    yields: bool


def kind_of(function: Any) -> CallableKind:
    """Return what a callable is; an object with an async ``__call__`` is async."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, StepCall):
        return CallableKind(isinstance(function, AsyncStepCall), function.yields)
    both = (function, getattr(function, "__call__", None))  # noqa: B004 - is it callable is not the question
    return CallableKind(
        is_async=any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in both),
        yields=any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in both),
    )


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a callable's signature; None for some builtins, which have none."""
    try:
        return inspect.signature(function, **_AS_WRITTEN)
    except (TypeError, ValueError):
        return None


def takes(signature: inspect.Signature | None, *arguments: Any) -> bool:
    """Say whether these arguments can be given; without a signature the call itself will tell."""
    try:
        if signature is not None:
            signature.bind(*arguments)
    except TypeError:
        return False
    return True


def imported(task: str, path: str) -> Callable[..., Any]:
    """Import ``package.module:function``."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise OptionError(f"task {task!r}: method {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise OptionError(f"task {task!r}: method {path!r} is {found!r}: allowed is a callable")
    return found  # type: ignore[no-any-return]
