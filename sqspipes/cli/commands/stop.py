"""Stop: all that runs a pipe now, on every machine."""

from __future__ import annotations

import click

from sqspipes.cli.shared import logs
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import client_named, target_argument
from sqspipes.cli.shared.telling import heeded


@click.command("stop")
@shared
@target_argument
def command(target: str) -> None:
    """Stop all that runs a pipe now, on every machine.

    Running calls get their time and nothing is lost. What starts later runs.
    """
    logs.set_up()
    with client_named(target) as client:
        client.stop_all()
        click.echo(f"told all to stop; {heeded(client)}, what starts from now on runs")
