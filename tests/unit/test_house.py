"""The house rules that a machine can check: no sleeping, named threads, queues in memory that have a bound."""

from __future__ import annotations

import ast
import configparser
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sqspipes

pytestmark = pytest.mark.once

PACKAGE = Path(sqspipes.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: What keeps each queue of the package short, by its file and its name.
BOUNDS = {
    "brokers/adapter.py _work": "requests under way, which the engine bounds",
    "brokers/redis/connections.py _idle": "_MOST_IDLE",
    "brokers/sqs/lean/pool.py _idle": "what the pool was told to keep at most",
    "brokers/sqs/quota.py _answers": "its maxlen: times of the newest answers",
    "brokers/sqlite/store.py _pending": "one request for each thread that waits for its answer",
    "engine/loop.py _inbox": "a word for each call and answer under way, taken out in the next turn",
    "processes/fleet.py _requests": "what users ask for, and signals",
    "operations/put_batcher.py _behind": "counted with _ready",
    "operations/put_batcher.py _ready": "wait_for_room: MOST_WAITING_ITEMS and MOST_WAITING_BYTES",
    "engine/batcher.py _ready": "room of what is held, and of what a call emits: EmitRoom",
    "engine/batcher.py _behind": "the same",
    "engine/call_threads.py _calls": "a call is given when a slot is free, or soon will be: SLOTS_PER_CALL_AHEAD",
    "brokers/sqs/lean/nonblocking.py _idle": "most_idle",
    "engine/settling.py effects": "applied at the end of each turn",
    "engine/lanes.py _ready": "admission's room: Pace.capacity",
    "engine/stream.py _results": "wait_for_room: MOST_RESULTS",
    "engine/stream.py _to_do": "results that were read, taken out as they come: nothing there waits",
    "support/log_writer.py _lines": "MOST_WAITING",
    "support/workers.py _idle": "the threads of the pool",
    "support/workers.py _work": "what the caller waits for",
    "operations/trial.py _waiting": "what one value becomes on its way",
}


@cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text())


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Yield the calls of functions or classes with these names, however they were imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if named in names:
                yield node


def sleeps(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that have to do with the sleep of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "sleep" for alias in node.names):
            yield node.lineno
        if isinstance(node, ast.Import) and any(alias.asname for alias in node.names if alias.name == "time"):
            yield node.lineno  # under another name it would not be recognised
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.sleep", "asyncio.sleep"):
            yield node.lineno


def queues(tree: ast.AST) -> Iterator[str]:
    """Yield the names of attributes that are set to something which holds a queue."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            made = any(calls(node.value, "deque", "SimpleQueue", "LifoQueue", "PriorityQueue"))
            made |= "queue.Queue(" in ast.unparse(node.value)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                inside = target.value if isinstance(target, ast.Subscript) else target
                if made and isinstance(inside, ast.Attribute):
                    yield inside.attr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_sleeps(file: Path) -> None:
    assert list(sleeps(parsed(file))) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_waits_goes_by_a_clock_that_no_test_freezes(file: Path) -> None:
    part, *_ = file.relative_to(PACKAGE).parts
    if file.name != "clocks.py" and part not in (
        "cli",
        "console",
        "demo",
        "testing",
    ):  # what is only shown may go by any
        assert "time.monotonic" not in file.read_text(), (
            "sqspipes.support.clocks.monotonic is the clock for this"
        )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_every_thread_is_named_and_holds_up_no_exit(file: Path) -> None:
    for call in calls(parsed(file), "Thread"):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert "name" in given and given.get("daemon") == "True", f"line {call.lineno}"


def test_every_queue_in_memory_has_a_bound() -> None:
    found = {
        f"{file.relative_to(PACKAGE).as_posix()} {name}" for file in FILES for name in queues(parsed(file))
    }
    assert found - BOUNDS.keys() == set()


def test_lowest_versions_that_are_allowed_are_tested() -> None:
    repository = Path(__file__).parents[2]
    tox = configparser.RawConfigParser()
    tox.read(repository / "tox.ini")
    tested = dict(re.findall(r"^(\w+)==([\d.]+)$", tox["floors"]["deps"], re.MULTILINE))
    for name, floor in re.findall(r'"(\w+)>=([\d.]+)"', (repository / "setup.py").read_text()):
        assert re.fullmatch(rf"{re.escape(floor)}(\.0)*", tested[name]), name


#: Files with more lines than a reader takes in at once, and why each is one.
LONG_FILES = {
    "brokers/sqlite/store.py": "a file, its threads and its turns: every method touches the same connection",
    "brokers/sqs/errors.py": "tables of what SQS and the network say",
    "brokers/sqs/lean/nonblocking.py": "one state machine: it connects, shakes hands, sends and reads",
    "brokers/sqs/transport/answers.py": "the gate for answers, action by action",
    "client.py": "the facade: nearly all of it is signatures and docstrings",
    "engine/admission.py": "one decision, what to receive, with all that it takes into account",
    "engine/task_run.py": "the hub of one task",
}

#: Functions with more lines, and why.
LONG_FUNCTIONS = {"client_runs.py run": "a signature and a docstring"}

MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION, MOST_EXCEPTIONS = 300, 40, 10


def test_files_are_short_but_for_some_with_a_reason() -> None:
    long = {
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        if len(file.read_text().splitlines()) > MOST_LINES_OF_A_FILE
    }
    assert long == set(LONG_FILES)
    assert len((PACKAGE / "client.py").read_text().splitlines()) <= 400


def test_functions_are_short_but_for_some_with_a_reason() -> None:
    long = {
        f"{file.relative_to(PACKAGE).as_posix()} {node.name}"
        for file in FILES
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
    }
    assert long == set(LONG_FUNCTIONS)
    assert len(LONG_FILES) + len(LONG_FUNCTIONS) <= MOST_EXCEPTIONS


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name.lstrip("_")
        for file in FILES
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()
