"""Logs: lines on standard error, or above the live view, as text or as JSON."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from sqspipes import LogFormatter

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

#: They log requests at DEBUG, with the session's token in a header.
_TOO_OPEN = ("boto3", "botocore", "urllib3", "s3transfer")


def json_line(value: Any) -> str:
    """Return a value as JSON in one line, in which nothing commands a terminal."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(one: str) -> str:
    return one if one.isprintable() else json.dumps(one)[1:-1]


class JsonLines(logging.Formatter):
    """Formats each record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json_line(line)


class AboveView(logging.Handler):
    """Prints records on the console that shows a live view, so that they stand above it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


def set_up(level: str = "warning", format: str = "text", console: Console | None = None) -> None:
    """Have everything logged from a level on; replaces what was set up before."""
    handler = logging.StreamHandler() if console is None else AboveView(console)
    text = LogFormatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonLines() if format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _TOO_OPEN:
        logging.getLogger(name).setLevel(logging.WARNING)
