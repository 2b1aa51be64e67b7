"""Purge: a pipe's queues are emptied."""

from __future__ import annotations

import click

from sqspipes import TaskClient
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.removing import remove, yes_option
from sqspipes.cli.shared.targets import target_argument


@click.command("purge")
@shared
@target_argument
@yes_option
def command(target: str, yes_domain: str | None) -> None:
    """Empty the queues of a pipe, dead letters too."""
    remove(target, yes_domain, "empty", TaskClient.purge, "emptied")
