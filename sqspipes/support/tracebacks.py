"""Tracebacks: an error of a user's function, without the frames of the package that called the function."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType

from sqspipes.support import forked

#: The environment variable that has all frames shown; ``--debug`` sets it.
DEBUG = "SQSPIPES_DEBUG"

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
#: The tasks of the demo are written as a user writes them.
_DEMO = f"{_PACKAGE}demo{os.sep}"
#: Every function of users is called from here: a traceback without it is one of the package's own.
_CALLER = forked.__file__


def formatted(error: BaseException, place: TracebackType | None = None) -> str:
    """Return the traceback of an error as text; an error that met no function of users keeps all frames.

    May raise whatever an error raises that cannot be printed.
    """
    shown = traceback.TracebackException(type(error), error, place or error.__traceback__)
    if not os.environ.get(DEBUG):
        _leave_out(shown, set())
    return "".join(shown.format())


def _leave_out(shown: traceback.TracebackException, seen: set[int]) -> None:
    """Leave the package's frames out of a traceback, and out of those that it came of."""
    if id(shown) in seen:
        return
    seen.add(id(shown))
    others = [frame for frame in shown.stack if not _is_ours(frame.filename)]
    if others and any(frame.filename == _CALLER for frame in shown.stack):
        shown.stack[:] = others
    for one in (shown.__cause__, shown.__context__, *(getattr(shown, "exceptions", None) or ())):
        if one is not None:
            _leave_out(one, seen)


def _is_ours(file: str) -> bool:
    return file.startswith(_PACKAGE) and not file.startswith(_DEMO)
