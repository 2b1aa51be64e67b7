"""Error text: an error of a task as text for logs and dead letters, also of one that cannot be printed."""

from __future__ import annotations

import json
import time
import traceback

from sqspipes.errors import SqspipesError
from sqspipes.messages.message import Death
from sqspipes.support import tracebacks
from sqspipes.tasks.task import Task

#: Bytes of JSON that a dead letter's error may use: its type, its text and its traceback.
TYPE_BYTES, ERROR_BYTES, TRACEBACK_BYTES = 200, 1_500, 5_000


def said(error: BaseException) -> str:
    """Return an error's text, also of one that cannot be printed; what no file could take is escaped."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:
        return "(its text cannot be printed)"


def describe(error: BaseException) -> str:
    """Return an error as one line: its type and its text."""
    text = " ".join(said(error).split())
    return f"{name_of(error)}: {text[:500]}" if text else name_of(error)


def name_of(error: BaseException) -> str:
    """Return the name of an error's class, also of one whose metaclass does not tell it."""
    return str(type.__dict__["__name__"].__get__(type(error)))


def loggable(error: BaseException | None) -> BaseException | None:
    """Return an error if logging can print its traceback: it survives no recursion error and no exit there.

    Nor does a file take half a surrogate pair.
    """
    try:
        "".join(traceback.format_exception(error)).encode()
    except BaseException:
        return None
    return error


def formatted(error: BaseException) -> str:
    """Return an error's traceback as text, without the package's own frames."""
    if isinstance(error, SqspipesError) and error.__cause__ is None:
        return ""
    try:
        return tracebacks.formatted(error)
    except BaseException:
        return describe(error)


def cut(text: str, most: int, *, keep_end: bool = False) -> str:
    """Return a text whose JSON has at most so many bytes: its beginning, or its end."""
    while (size := len(json.dumps(text))) > most:
        keep = max(1, len(text) * most // size - 8)
        text = "..." + text[-keep:] if keep_end else text[:keep] + "..."
    return text


def death(task: Task, error: BaseException, attempts: int) -> Death:
    """Return the reason of a dead letter, cut to what every letter has room for."""
    return Death(
        task=task.name,
        error_type=cut(name_of(error), TYPE_BYTES),
        error=cut(said(error), ERROR_BYTES),
        traceback=cut(formatted(error), TRACEBACK_BYTES, keep_end=True),
        attempts=attempts,
        died=time.time(),
    )
