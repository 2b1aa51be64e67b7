"""Imports point down only, and a broker is known to ``open_broker`` alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "sqspipes").rglob("*.py")
}

#: Each module imports its own layer and those below it; what is not named here is the facade, on top.
LAYERS = (
    "processes",
    "runner",
    "brokers",
    "task callables results step async_step",
    "brokers.base",
    "message names",
    "values",
    "options urls",
    "errors",
    "clocks wakeup workers",
    "lines forked",
)


def layer(module: str) -> int:
    """Return the place of a module: the larger, the lower."""
    name = module.removeprefix("sqspipes.")
    if name.startswith("brokers.") and name != "brokers.base":
        name = "brokers"
    name = next((group for group in ("processes", "runner") if name.startswith(f"{group}.")), name)
    return next((place for place, names in enumerate(LAYERS) if name in names.split()), -1)


def is_broker(module: str) -> bool:
    """Say whether a module is a broker, or a part of one."""
    return module.startswith("sqspipes.brokers.") and module != "sqspipes.brokers.base"


def imports(module: str) -> Iterator[str]:
    """Yield the modules of sqspipes that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are written in full"
            full = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from full or {str(node.module)} & MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    assert [other for other in imports(module) if layer(other) < layer(module)] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_broker_is_imported_by_open_broker_alone(module: str) -> None:
    brokers = [other for other in imports(module) if is_broker(other)]
    if module == "sqspipes.brokers" or (is_broker(module) and all(kin(module, other) for other in brokers)):
        return
    assert brokers == []


@pytest.mark.parametrize("module", sorted(filter(is_broker, MODULES)))
def test_broker_imports_the_port_and_its_own_parts_only(module: str) -> None:
    port = {"brokers.base", "message", "errors", "clocks", "lines", "urls", "wakeup", "workers"}
    others = [other for other in imports(module) if not kin(module, other)]
    assert [other for other in others if other.removeprefix("sqspipes.") not in port] == []


def kin(module: str, other: str) -> bool:
    """Say whether two modules are parts of one broker."""
    return module.split(".")[:3] == other.split(".")[:3]


@pytest.mark.parametrize("slow", ["asyncio", "boto3", "botocore", "pytest"])
def test_import_of_the_package_brings_nothing_slow(slow: str) -> None:
    program = f"import sys, sqspipes; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
