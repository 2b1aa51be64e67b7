"""Lines: what others wrote is shown and logged so that it commands no terminal and forges no line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqspipes.support import tracebacks
from sqspipes.support.log_writer import log_writer

#: Characters of a text that a line shows. An id has 1,000 at most; a body of other programs may bring any.
LONGEST = 2_000

#: Lines of a traceback that are logged: an error's text may have any number.
MOST_LINES = 400

#: What stands before each line of a traceback in a log: no line of an error's text looks like one of the log's.
INDENT = "  "


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text without what would command a terminal; ``lines`` leaves line ends and tabs."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(one if one.isprintable() or one in kept else ascii(one)[1:-1] for one in text)


def shortened(text: str, most: int = LONGEST) -> str:
    """Return the beginning of a text that is too long, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def one_line(text: str) -> str:
    """Return a text as a part of one line."""
    return printable(shortened(text))


def indented(text: str) -> str:
    """Return the lines of a traceback as a log shows them."""
    found = text.split("\n")
    if len(found) > MOST_LINES:
        half = MOST_LINES // 2
        found = [*found[:half], f"... {len(found) - 2 * half:,} lines ...", *found[-half:]]
    return "\n".join(INDENT + one_line(line) if line else line for line in found)


class LogFormatter(logging.Formatter):
    """Formats any program's records so that each begins with a line of its own and commands no terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return a record's line; the line ends of its message are escaped."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback, indented."""
        return indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Return a stack, indented."""
        return indented(stack_info)


class _Escaping(logging.Filter):
    """Escapes what records are made of, whatever handlers a program has."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, its texts escaped."""
        if isinstance(record.msg, str):
            record.msg = printable(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _argument(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_argument, record.args))
        if record.exc_info and not record.exc_text:
            _, error, place = record.exc_info
            text = "" if error is None else tracebacks.formatted(error, place)
            record.exc_text = indented(text.removesuffix("\n"))
        return True


def _argument(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return one_line(value if isinstance(value, str) else str(value))


_escaping = _Escaping()


def logger(name: str) -> logging.Logger:
    """Return the logger of a module, or of a step: its lines are safe to show."""
    found = logging.getLogger(name)
    # A second time these are no second ones. The writer's is first: to escape is left to its thread, too.
    found.addFilter(log_writer)
    found.addFilter(_escaping)
    return found
