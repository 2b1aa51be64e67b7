"""Forked: a process that a task's function forks, and that comes back out of it, has no part in the run."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn


def called(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns; a process that it forked ends where it would return, or raise.

    Its exit code is what Python's own would be: it must not hand on, fail or acknowledge what the parent has, too.
    """
    here = os.getpid()
    try:
        made = function(*arguments)
    except BaseException as error:
        if os.getpid() != here:
            _end(error)
        raise
    if os.getpid() != here:
        _end(None)
    return made


def _end(error: BaseException | None) -> NoReturn:
    code = 0 if error is None else 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = (error.code or 0) & 0xFF
    elif error is not None:
        with suppress(BaseException):
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code)
