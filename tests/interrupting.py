"""Interrupts: an exception of a signal's handler, at any line of the package in turn."""

from __future__ import annotations

import ast
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import sqspipes

PACKAGE = str(Path(sqspipes.__file__).parent)


def ctrl_c() -> None:
    """Do what Python does at Ctrl-C."""
    raise KeyboardInterrupt


def interrupted_everywhere(
    action: Callable[[], object], handler: Callable[[], object] = ctrl_c, *, step: int = 1
) -> Iterator[int]:
    """Run an action again and again, and a signal's handler at a later line of the package each time.

    Yields the number of lines that it came to after each run that was interrupted. CPython looks for signals between
    any two lines but one pair: from the last line of a ``with`` to the end of it.
    """
    number = 1
    while _is_interrupted(action, handler, number):
        yield number
        number += step


def _is_interrupted(action: Callable[[], object], handler: Callable[[], object], number: int) -> bool:
    interrupt = _Interrupt(handler, number)
    before = sys.gettrace()
    gc.disable()  # a finalizer is no part of the action, and Python drops what it raises
    sys.settrace(interrupt.called)
    try:
        action()
    except BaseException as error:
        if error is not interrupt.error:
            raise
    finally:
        sys.settrace(before)
        gc.enable()
    return interrupt.left == 0


class _Interrupt:
    """A trace function that calls a handler at one line."""

    def __init__(self, handler: Callable[[], object], left: int) -> None:
        self._handler = handler
        self._last: dict[FrameType, int] = {}
        self.left = left
        self.error: BaseException | None = None

    def called(self, frame: FrameType, event: str, argument: Any) -> Any:
        ours = frame.f_code.co_filename.startswith(PACKAGE) and frame.f_code.co_name != "__del__"
        return self._line if ours and self.left else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and self.left and not self._leaves_with(frame):
            self.left -= 1
            if not self.left:
                try:
                    self._handler()
                except BaseException as error:
                    self.error = error
                    raise
        return self._line

    def _leaves_with(self, frame: FrameType) -> bool:
        last = self._last.get(frame, 0)
        self._last[frame] = frame.f_lineno
        end = _withs(frame.f_code.co_filename).get(frame.f_lineno)
        return end is not None and frame.f_lineno < last <= end


@functools.cache
def _withs(file: str) -> dict[int, int]:
    """Return the first and last lines of the blocks that a context manager guards."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return {
        node.lineno: node.end_lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and node.end_lineno is not None
    }
