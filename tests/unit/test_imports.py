"""Folders are layers: a module imports from lower rows and its own folder only; there is no circle of any kind."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sqspipes

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "sqspipes").rglob("*.py")
}

#: The rows, the highest first: modules of the package, and folders (with a slash). Those of one row know nothing of
#: each other. ``__init__`` and ``__main__`` of the package are above all.
ROWS = (
    "cli/",
    "cli/commands/",
    "cli/shared/",
    "demo/",
    "console/",
    "pipeline task_client testing/",
    "testing/broker_contract/",
    "client",
    "client_runs",
    "client_state",
    "settings",
    "processes/ operations/",
    "engine/",
    "calls/",
    "brokers",
    "brokers/redis/ brokers/sqlite/ brokers/sqs/",
    "brokers/sqs/lean/",
    "brokers/sqs/transport/",
    "brokers/",
    "tasks/",
    "messages/",
    "support/",
    "defaults errors events",
    "_starting summary",
)

#: What is used as people use it: by its public names alone.
USERS = ("cli/", "console/", "demo/")


@cache
def folder(module: str) -> str:
    """Return a module's folder, with a slash; or the module, if it is on top, or the one of ``open_broker``."""
    inside = MODULES[module].relative_to(ROOT / "sqspipes")
    if inside.parent == Path() or module == "sqspipes.brokers":
        return module.removeprefix("sqspipes.")
    return f"{inside.parent.as_posix()}/"


@cache
def row(module: str) -> int | None:
    """Return the number of a module's row: the larger, the lower; None if no row names it."""
    if module in ("sqspipes", "sqspipes.__main__"):
        return -1
    return next((number for number, names in enumerate(ROWS) if folder(module) in names.split()), None)


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of sqspipes that a module imports anywhere in its text, for types too."""
    return frozenset(_imports(module)) - {module}


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are written in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from {full if full in MODULES else str(node.module)} & MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_has_a_row(module: str) -> None:
    assert row(module) is not None


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_from_lower_rows_and_its_own_folder_only(module: str) -> None:
    wrong = [
        other
        for other in imports(module)
        if folder(other) != folder(module)
        and (row(other) or 0) <= (row(module) or 0)
        and not (is_user(module) and other == "sqspipes")
    ]
    assert wrong == []


def is_user(module: str) -> bool:
    """Say whether a module has to use the package as people do."""
    return folder(module).startswith(USERS)


@pytest.mark.parametrize("module", sorted(filter(is_user, MODULES)))
def test_command_line_and_demo_use_public_names_alone(module: str) -> None:
    others = {other for other in imports(module) if not is_user(other)}
    # Before it can catch Ctrl-C itself the command has to say that it is there.
    assert others - {"sqspipes"} == ({"sqspipes._starting"} if module == "sqspipes.cli" else set())
    assert set(names_of_the_package(module)) - {*sqspipes.__all__, "__file__", "_starting"} == set()


def names_of_the_package(module: str) -> Iterator[str]:
    """Yield the names of the package itself that a module imports, or takes from it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "sqspipes":
            yield from (alias.name for alias in node.names)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "sqspipes"
        ):
            yield node.attr


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return a circle for each node that reaches itself."""
    found: list[list[str]] = []
    over: set[str] = set()

    def visit(node: str, way: list[str]) -> None:
        if node in way:
            found.append([*way[way.index(node) :], node])
        elif node not in over:
            for other in sorted(edges.get(node, ())):
                visit(other, [*way, node])
            over.add(node)

    for node in sorted(edges):
        visit(node, [])
    return found


def test_modules_are_free_of_circles() -> None:
    assert circles({module: set(imports(module)) for module in MODULES}) == []


def test_folders_are_free_of_circles() -> None:
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        others = {folder(other) for other in imports(module)}
        edges.setdefault(folder(module), set()).update(others - {folder(module)})
    assert circles(edges) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c", "b"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def is_broker(module: str) -> bool:
    """Say whether a module is a broker, or a part of one."""
    return module.startswith("sqspipes.brokers.") and folder(module) != "brokers/"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_broker_is_imported_by_open_broker_alone(module: str) -> None:
    brokers = [other for other in imports(module) if is_broker(other)]
    kin = module.split(".")[:3]
    assert module == "sqspipes.brokers" or all(other.split(".")[:3] == kin for other in brokers)


@pytest.mark.parametrize("module", sorted(filter(is_broker, MODULES)))
def test_broker_knows_no_task(module: str) -> None:
    assert not any(folder(other) == "tasks/" for other in imports(module))


@pytest.mark.parametrize("slow", ["asyncio", "boto3", "botocore", "pytest"])
def test_import_of_the_package_brings_nothing_slow(slow: str) -> None:
    program = f"import sys, sqspipes; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
