"""The log writer: a handler that blocks holds up nobody, lines stay in order, and what is missing is said."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from sqspipes.support import log_writer as module
from sqspipes.support.log_writer import LogWriter

PATIENCE = 10.0


class Gated(logging.Handler):
    """Keeps messages; blocks until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.open = threading.Event(), threading.Event()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        assert self.open.wait(PATIENCE)
        self.told.append(record.getMessage())


@pytest.fixture
def writer() -> LogWriter:
    return LogWriter()


@pytest.fixture
def handler() -> Gated:
    return Gated()


@pytest.fixture
def logger(writer: LogWriter, handler: Gated) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.log_writer")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.addFilter(writer)
    yield logger
    handler.open.set()
    logger.removeHandler(handler)
    logger.removeFilter(writer)


def deferring(writer: LogWriter, log: object) -> threading.Thread:
    """Call a function in a thread that leaves its lines to the writer."""

    def work() -> None:
        with writer.deferring(0.0):
            log()  # type: ignore[operator]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_handler_that_blocks_holds_up_nobody(
    writer: LogWriter, handler: Gated, logger: logging.Logger
) -> None:
    thread = deferring(writer, lambda: [logger.info("line %d", number) for number in range(100)])
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert handler.entered.wait(PATIENCE)
    assert not writer.flush(0.01)
    handler.open.set()
    assert writer.flush(PATIENCE)
    assert handler.told == [f"line {number}" for number in range(100)]


def test_other_threads_write_their_lines_themselves(
    writer: LogWriter, handler: Gated, logger: logging.Logger
) -> None:
    handler.open.set()
    logger.info("here")
    assert handler.told == ["here"]


def test_lines_beyond_the_bound_are_counted_and_said(
    writer: LogWriter, handler: Gated, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    deferring(writer, lambda: logger.info("first")).join(PATIENCE)
    assert handler.entered.wait(PATIENCE)
    deferring(writer, lambda: [logger.info("line %d", number) for number in range(8)]).join(PATIENCE)
    handler.open.set()
    assert writer.flush(PATIENCE)
    missing = "3 lines of the log are missing: it was behind"
    assert handler.told == ["first", "line 0", missing, *(f"line {number}" for number in range(1, 5))]


def test_handler_that_raises_costs_its_line_only(
    writer: LogWriter, logger: logging.Logger, handler: Gated
) -> None:
    class Refuses(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "bad":
                raise SystemExit("no")

    refuses = Refuses()
    logger.handlers.insert(0, refuses)
    handler.open.set()
    try:
        deferring(writer, lambda: [logger.info("bad"), logger.info("good")]).join(PATIENCE)
        assert writer.flush(PATIENCE)
    finally:
        logger.removeHandler(refuses)
    assert handler.told == ["good"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_has_a_writer_of_its_own(
    writer: LogWriter, handler: Gated, logger: logging.Logger
) -> None:
    handler.open.set()
    told, over = threading.Event(), threading.Event()

    def parent() -> None:
        logger.info("parent")
        told.set()
        assert over.wait(PATIENCE)  # the writer's thread goes on meanwhile

    thread = deferring(writer, parent)
    assert told.wait(PATIENCE)
    assert writer.flush(PATIENCE)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            deferring(writer, lambda: logger.info("child")).join(PATIENCE)
            if writer.flush(PATIENCE) and handler.told == ["parent", "child"]:
                code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    over.set()
    thread.join(PATIENCE)
    assert code == 0


def test_thread_of_the_writer_ends_when_nobody_defers(
    writer: LogWriter, handler: Gated, logger: logging.Logger
) -> None:
    handler.open.set()
    for number in range(2):
        deferring(writer, lambda: logger.info("a line")).join(PATIENCE)
        assert writer.flush(PATIENCE)
        thread = writer._thread
        if thread is not None:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert handler.told == ["a line"] * (number + 1)
