"""What others wrote commands no terminal and forges no line, in any program's log."""

from __future__ import annotations

import importlib
import io
import json
import logging
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqspipes
from sqspipes.cli.shared.logs import json_line
from sqspipes.support import lines

#: What clears a screen, hides text, or begins a line that looks like one of the log's.
EVIL = "\x1b[2J\r\n08:00:00 INFO    forged\x9b1m\u202e\u2028\x7f"


@pytest.fixture
def log() -> io.StringIO:
    """What a program's own handler writes of the library's records, with logging's own formatter."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    own = lines.logger("sqspipes.tests.lines")
    own.propagate, own.handlers = False, [handler]
    return text


def own() -> logging.Logger:
    """Return the logger that writes to ``log``."""
    return lines.logger("sqspipes.tests.lines")


def test_arguments_of_the_librarys_lines_are_escaped(log: io.StringIO) -> None:
    own().warning("%s failed %d times: %s", EVIL, 3, ValueError(EVIL))
    assert log.getvalue().count("\n") == 1
    assert log.getvalue().startswith("WARNING \\x1b[2J\\r\\n08:00:00 INFO    forged\\x9b1m\\u202e")
    assert log.getvalue()[:-1].isprintable()


def test_text_of_a_step_is_escaped_too(log: io.StringIO) -> None:
    own().warning(f"got {EVIL}")
    own().warning("got %(what)s", {"what": EVIL})
    assert log.getvalue().count("\n") == 2
    assert "\x1b" not in log.getvalue()


def test_lines_of_a_traceback_do_not_begin_where_those_of_the_log_do(log: io.StringIO) -> None:
    try:
        raise ValueError(EVIL)
    except ValueError:
        own().exception("%s died", "task")
    first, *rest = log.getvalue().splitlines()
    assert first == "ERROR task died"
    assert "Traceback" in rest[0]
    assert [line for line in rest if line and not line.startswith("  ")] == []
    assert "\x1b" not in log.getvalue()


def test_text_of_any_length_is_shortened(log: io.StringIO) -> None:
    own().warning("%s is a dead letter", "x" * 900_000)
    try:
        raise ValueError("y" * 900_000 + "\n" * 900_000)
    except ValueError:
        own().exception("died")
    assert "... (900,000 characters)" in log.getvalue()
    assert len(log.getvalue()) < 20_000


def test_every_logger_of_the_library_escapes() -> None:
    modules = [
        one.name
        for one in pkgutil.walk_packages(sqspipes.__path__, "sqspipes.")
        if "__main__" not in one.name
    ]
    for name in modules:
        if name != "sqspipes.testing.plugin":
            importlib.import_module(name)
    made = {name: each for name, each in logging.root.manager.loggerDict.items() if name in modules}
    bare = [name for name, each in made.items() if isinstance(each, logging.Logger) and not each.filters]
    assert (bare, len(made) > 10) == ([], True)


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert lines.one_line(text).isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_line_of_json_is_one_line_and_the_same_value(text: str) -> None:
    line = json_line({"value": text})
    assert (line.isprintable(), json.loads(line)) == (True, {"value": text})


def test_formatter_of_the_command_line_escapes_what_any_library_logs() -> None:
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "got %s", "args": (EVIL,)})
    text = lines.LogFormatter("%(levelname)-7s %(message)s").format(record)
    assert text.isprintable()
