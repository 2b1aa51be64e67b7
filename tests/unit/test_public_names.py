"""The public surface is ``sqspipes/__init__.py``: sorted, complete, documented, and nothing but names."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sqspipes
from sqspipes import client, errors, task_client

PUBLIC: list[str] = list(sqspipes.__all__)

#: What API.md promises by name, whatever else becomes public.
PROMISED = {
    "Broker",
    "DeadLetter",
    "EmptyTaskOutput",
    "Output",
    "Results",
    "Run",
    "Summary",
    "TaskCallback",
    "TaskClient",
    "TaskClientError",
}


def test_names_are_sorted_and_unique() -> None:
    assert sorted(set(PUBLIC)) == PUBLIC


def test_every_public_name_is_listed() -> None:
    found = {
        name
        for name, value in vars(sqspipes).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert found == set(PUBLIC)


def test_every_error_and_every_promised_name_is_public() -> None:
    names = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert (names | PROMISED) - set(PUBLIC) == set()


def test_package_defines_nothing_itself() -> None:
    tree = ast.parse(Path(inspect.getfile(sqspipes)).read_text(encoding="utf-8"))
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    assert [type(node).__name__ for node in tree.body if not isinstance(node, plain)] == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if not name.startswith("_")])
def test_public_name_keeps_its_promise_in_one_line(name: str) -> None:
    missing = [where for where, one in documented(name) if not first_line(one).endswith(".")]
    assert missing == []


@pytest.mark.parametrize("module", [client, task_client])
def test_client_is_importable_from_where_it_was(module: ModuleType) -> None:
    assert module.TaskClient is sqspipes.TaskClient


def test_client_error_is_importable_from_where_it_was() -> None:
    assert task_client.TaskClientError is sqspipes.TaskClientError


def documented(name: str) -> list[tuple[str, Any]]:
    """Return a public object with its public methods and properties, each with its name."""
    public = getattr(sqspipes, name)
    parts = vars(public).items() if inspect.isclass(public) else ()
    return [(name, public)] + [
        (f"{name}.{part}", value)
        for part, value in parts
        if not part.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
    ]


def first_line(public: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(public) or "").partition("\n")[0]
