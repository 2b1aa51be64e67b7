"""Delete: a pipe's queues go, with all they hold."""

from __future__ import annotations

import click

from sqspipes import TaskClient
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.removing import remove, yes_option
from sqspipes.cli.shared.targets import target_argument


@click.command("delete")
@shared
@target_argument
@yes_option
def command(target: str, yes_domain: str | None) -> None:
    """Delete the queues of a pipe, with all they hold."""
    remove(target, yes_domain, "delete", TaskClient.delete, "deleted")
