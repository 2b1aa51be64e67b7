"""Outline: the clients and pipelines that the text of a file names, and their tasks, without running any of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outline:
    """A client or a pipeline; ``tasks`` are those that are written out."""

    name: str
    attribute: str
    tasks: tuple[str, ...]


def outlines(text: str) -> list[Outline]:
    """Return what a file makes at its top level; raises ``SyntaxError`` or ``ValueError`` if it is no Python."""
    reader = _Reader()
    for node in ast.parse(text).body:
        reader.read(node)
    return list(reader.found.values())


class _Reader:
    """Reads statements one after the other; ``found`` has what they make, by the names of its variables."""

    def __init__(self) -> None:
        self.found: dict[str, Outline] = {}
        self._pipelines = {"Pipeline"}

    def read(self, node: ast.stmt) -> None:
        """Take note of a client, of the tasks that one is given, or of a pipeline."""
        if isinstance(node, ast.ClassDef):
            self._read_class(node)
        elif isinstance(node, ast.Expr):
            variable, tasks = _chain(node.value)
            if variable in self.found and tasks:
                self.found[variable] = Outline(variable, variable, tasks)
        else:
            for name, value in _assigned(node):
                maker, tasks = _chain(value)
                if maker == "TaskClient()":
                    self.found[name] = Outline(name, name, tasks)

    def _read_class(self, node: ast.ClassDef) -> None:
        if not self._pipelines & {_last_name(base) for base in node.bases}:
            return
        self._pipelines.add(node.name)
        given = {name: value for statement in node.body for name, value in _assigned(statement)}
        name = _text(given.get("name")) or node.name
        self.found[node.name] = Outline(name, node.name, _tasks(given.get("steps")))


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Yield the variables that a statement sets, and to what."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        yield from ((target.id, node.value) for target in targets if isinstance(target, ast.Name))


def _chain(value: ast.expr) -> tuple[str, tuple[str, ...]]:
    """Return what a chain of calls begins with, a variable or ``TaskClient()``, and the tasks registered in it."""
    tasks: tuple[str, ...] = ()
    while isinstance(value, ast.Call):
        if _last_name(value.func) == "TaskClient":
            return "TaskClient()", tasks
        if not isinstance(value.func, ast.Attribute):
            break
        if value.func.attr == "register_tasks" and value.args:
            tasks = _tasks(value.args[0])
        value = value.func.value
    return (value.id if isinstance(value, ast.Name) else ""), tasks


def _tasks(given: ast.expr | None) -> tuple[str, ...]:
    """Return the names of tasks in a list of functions, steps, texts and dicts."""
    elements = given.elts if isinstance(given, ast.List | ast.Tuple) else []
    return tuple(name for element in elements if (name := _task(element)))


def _task(element: ast.expr) -> str:
    if isinstance(element, ast.Dict):
        keys = {_text(key): value for key, value in zip(element.keys, element.values, strict=True) if key}
        return _text(keys.get("name")) or (_task(keys["method"]) if "method" in keys else "")
    if path := _text(element):  # package.module:function
        return path.rpartition(":")[2].rpartition(".")[2]
    return _last_name(element)


def _last_name(node: ast.expr) -> str:
    """Return ``c`` of ``c`` and of ``a.b.c``."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.expr | None) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
