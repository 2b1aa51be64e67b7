"""Commands: one a file, which has it as ``command``; the file's name is the command's."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import click

#: The order in which people meet them; others come behind.
ORDER = (
    *("list", "run", "put", "results", "status", "pause", "resume", "stop", "dead", "purge", "delete"),
    *("demo", "guide"),
)


@cache
def names() -> list[str]:
    """Return the names of all commands, in their order."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def command(name: str) -> click.Command:
    """Return a command; its module is imported now."""
    found: click.Command = importlib.import_module(f"{__name__}.{name}").command
    return found
