"""Targets: a command's target becomes a client; what could not be imported is told beside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from sqspipes import TaskClient, one_line
from sqspipes.cli.shared import completing, find

target_argument = click.argument("target", shell_complete=completing.targets)
tasks_argument = click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=completing.tasks)


def client_named(target: str) -> TaskClient:
    """Return the client of a target, from the folder in which the command works."""
    folder = Path.cwd()
    if ":" in target:
        return find.client_of(target, find.imported(target, folder))
    findings = find.look(folder)
    tell(findings.broken)
    return find.client_of(target, findings.named(target).object)


def tell(broken: Iterable[find.Broken]) -> None:
    """Say which files could not be imported: a line each, on standard error."""
    for each in broken:
        click.echo(f"{one_line(each.file)} cannot be imported: {each.error}", err=True)
