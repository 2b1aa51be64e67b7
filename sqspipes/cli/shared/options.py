"""Options: those of every command, which may stand before the command's name or after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

#: Under which a line that is being completed keeps its folder.
_FOLDER = "sqspipes working dir"

Command = TypeVar("Command", bound=Callable[..., Any])


def shared(command: Command) -> Command:
    """Give a command the options that all have."""
    for option in (_debug_option, _folder_option):
        command = option(command)
    return command


def is_debugging(arguments: Sequence[str] | None) -> bool:
    """Say whether tracebacks are wanted, after a command has ended and its context is gone."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return "--debug" in (given[: given.index("--")] if "--" in given else given)


def folder_of(context: click.Context) -> Path:
    """Return the folder in which a command would work whose line is being completed."""
    found: Path = context.meta.get(_FOLDER) or Path.cwd()
    return found


def _enter(context: click.Context, option: click.Parameter, folder: Path | None) -> None:
    if folder is not None and context.resilient_parsing:
        context.meta[_FOLDER] = folder  # a line that is being completed changes nothing
    elif folder is not None:
        os.chdir(folder)


_folder_option = click.option(
    "-W",
    "--working-dir",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Work as if started there: *pipelines.py files are looked for below it.",
    callback=_enter,
    is_eager=True,
    expose_value=False,
)


def _show_all(context: click.Context, option: click.Parameter, is_debugging: bool) -> None:
    """Have whole tracebacks logged, in this process and in those that it starts."""
    if is_debugging and not context.resilient_parsing:
        os.environ["SQSPIPES_DEBUG"] = "1"


_debug_option = click.option(
    "--debug",
    is_flag=True,
    help="Show the traceback of an error, and in those of tasks the frames of sqspipes too.",
    callback=_show_all,
    expose_value=False,
)
