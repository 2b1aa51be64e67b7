"""Find: the clients that a target names, and those in the files of a folder."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sqspipes import OptionError, Pipeline, TaskClient, did_you_mean
from sqspipes.cli.shared.streams import printing_to_error
from sqspipes.console.text import in_one_line

#: How the names of files end in which pipelines are looked for.
ENDING = "pipelines.py"

#: Folders that are not looked into, beside hidden ones and virtual environments.
OTHERS = ("__pycache__", "node_modules", "site-packages")


@dataclass(frozen=True, slots=True)
class Finding:
    """A client or a pipeline in a file: ``target`` is ``module:attribute``."""

    name: str
    target: str
    object: Any


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that could not be imported, and why, in one line."""

    file: str
    error: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What the files below a folder have."""

    found: tuple[Finding, ...]
    broken: tuple[Broken, ...]

    def named(self, name: str) -> Finding:
        """Return what has a name, which must be one thing."""
        matches = [each for each in self.found if each.name == name]
        if len(matches) > 1:
            targets = " and ".join(each.target for each in matches)
            raise OptionError(f"target {name!r} is {targets}: name one of them")
        if not matches:
            raise OptionError(self._unknown(name))
        return matches[0]

    def _unknown(self, name: str) -> str:
        known = [each.name for each in self.found]
        there = f"there are {', '.join(known)}" if known else f"no *{ENDING} below {Path.cwd()} has any"
        return f"target {name!r} is not found{did_you_mean(name, known)}: {there}; or name module:attribute"


def look(folder: Path) -> Findings:
    """Import the files below a folder whose names end in ``pipelines.py``, and return what they have."""
    found: dict[int, Finding] = {}
    broken: list[Broken] = []
    for file in files(folder):
        module = _import_file(file, folder)
        if isinstance(module, Broken):
            broken.append(module)
            continue
        for each in _members(module):  # one that others import is theirs, too
            found.setdefault(id(each.object), each)
    return Findings(tuple(found.values()), tuple(broken))


def imported(target: str, folder: Path) -> Any:
    """Return what ``module:attribute`` is."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise OptionError(
            f"target is {target!r}: allowed is module:attribute, or a name that `sqspipes list` shows"
        )
    _put_first(folder)
    try:
        with printing_to_error():
            found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise OptionError(f"target {target!r} cannot be imported: {in_one_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in dir(found) if not name.startswith("_")]
            raise OptionError(f"target {target!r}: {module} has no {part!r}{did_you_mean(part, public)}")
        found = getattr(found, part)
    return found


def client_of(target: str, found: Any) -> TaskClient:
    """Return the client that an object is, or has; a class is called first, without arguments."""
    with printing_to_error():
        made = found() if isinstance(found, type) else found
    client = made if isinstance(made, TaskClient) else getattr(made, "client", None)
    if isinstance(client, TaskClient):
        return client
    kind = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
    raise OptionError(
        f"target {target!r} is {kind}: allowed is a TaskClient, a Pipeline, or what has one as its client"
    )


def files(folder: Path, goes_on: Callable[[], bool] = lambda: True) -> Iterator[Path]:
    """Yield the files below a folder whose names end in ``pipelines.py``, as long as it is to go on."""
    for root, folders, names in os.walk(folder):
        if not goes_on():
            return
        folders[:] = sorted(name for name in folders if _is_looked_into(Path(root, name)))
        yield from (Path(root, name) for name in sorted(names) if name.endswith(ENDING))


def _is_looked_into(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in OTHERS
    return not hidden and not (folder / "pyvenv.cfg").exists()


def _import_file(file: Path, folder: Path) -> ModuleType | Broken:
    """Import a file, or say why it cannot be."""
    try:
        return _import_by_name(file, folder)
    except (Exception, SystemExit) as error:
        return Broken(file.relative_to(folder).as_posix(), _place(error, file))


def _import_by_name(file: Path, folder: Path) -> ModuleType:
    """Import a file under the name by which others import it: tasks go to other processes by their names."""
    top = file.parent if (file.parent / "__init__.py").exists() else folder
    while (top / "__init__.py").exists() and top != top.parent:
        top = top.parent
    _put_first(folder)
    _put_first(top)
    name = ".".join(file.relative_to(top).with_suffix("").parts)
    with printing_to_error():
        module = importlib.import_module(name)
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise ImportError(f"the module {name} is {module.__file__}")
    return module


def _put_first(folder: Path) -> None:
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def _members(module: ModuleType) -> Iterator[Finding]:
    for name, value in vars(module).items():
        target = f"{module.__name__}:{name}"
        if isinstance(value, TaskClient):
            yield Finding(name, target, value)
        elif _is_pipeline(value) and value.__module__ == module.__name__:
            given = getattr(value, "name", None)
            yield Finding(given if isinstance(given, str) and given else name, target, value)


def _is_pipeline(value: Any) -> bool:
    return isinstance(value, type) and value is not Pipeline and issubclass(value, Pipeline)


def _place(error: BaseException, file: Path) -> str:
    """Return what an error says, after the line of the file that it came from."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
        error = type(error)(error.msg)
    return f"line {lines[-1]}: {in_one_line(error)}" if lines else in_one_line(error)
