"""Completing: the names of targets and tasks that the shell offers at a Tab; files are read, never imported."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import click

from sqspipes.cli.shared import find, options
from sqspipes.cli.shared.outline import Outline, outlines

#: Seconds for which one Tab looks for files: a name that is found later is not offered.
PATIENCE = 1.0

#: Bytes of a file that is read.
LARGEST = 1_000_000


def targets(context: click.Context, argument: click.Parameter, begun: str) -> list[str]:
    """Return the names of clients and pipelines that begin so."""
    found = {outline.name for _, outline in _outlined(options.folder_of(context))}
    return sorted(name for name in found if name.startswith(begun))


def tasks(context: click.Context, argument: click.Parameter, begun: str) -> list[str]:
    """Return the names of the target's tasks that begin so, in their order, without those that are there already."""
    # At an option without its value click keeps the words before it as they are.
    target = context.params.get("target") or next(iter(context.args), "")
    given = {*(context.params.get("tasks") or ()), context.params.get("task")}
    for file, outline in _outlined(options.folder_of(context)):
        if target in (outline.name, f"{_module(file, target)}:{outline.attribute}"):
            return [task for task in outline.tasks if task.startswith(begun) and task not in given]
    return []


def _module(file: Path, target: str) -> str:
    """Return the module of a target if it can be this file's: the last parts of the two are the same."""
    module = target.partition(":")[0]
    return module if module.rpartition(".")[2] == file.stem else ""


def _outlined(folder: Path) -> Iterator[tuple[Path, Outline]]:
    """Yield what is named in the files below a folder; a file that cannot be read has nothing."""
    deadline = time.monotonic() + PATIENCE
    for file in find.files(folder, lambda: time.monotonic() < deadline):
        yield from ((file, outline) for outline in _outlines(file))


def _outlines(file: Path) -> list[Outline]:
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:  # a pipe would be waited for
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python thinks of the text goes to nobody's terminal
            return outlines(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
