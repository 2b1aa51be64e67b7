"""Resume: paused tasks go on, on every machine."""

from __future__ import annotations

import click

from sqspipes import TaskClient
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import target_argument, tasks_argument
from sqspipes.cli.shared.telling import tell


@click.command("resume")
@shared
@target_argument
@tasks_argument
def command(target: str, tasks: tuple[str, ...]) -> None:
    """Let paused tasks, or all, go on."""
    tell(target, tasks, TaskClient.resume, "resumed")
