"""Pause: tasks take nothing in, on every machine."""

from __future__ import annotations

import click

from sqspipes import TaskClient
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import target_argument, tasks_argument
from sqspipes.cli.shared.telling import tell


@click.command("pause")
@shared
@target_argument
@tasks_argument
def command(target: str, tasks: tuple[str, ...]) -> None:
    """Have tasks, or all, take nothing in until they are resumed.

    It holds for every process on every machine, also for those that start later. What they hold already is finished.
    """
    tell(target, tasks, TaskClient.pause, "paused")
