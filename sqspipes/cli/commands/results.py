"""Results: what comes out of a pipe, as lines of JSON."""

from __future__ import annotations

import json

import click

from sqspipes.cli.shared import logs, streams
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import client_named, target_argument


@click.command("results")
@shared
@target_argument
@click.option("--output", metavar="NAME", help="The output, if the pipe itself names none, or another one.")
@click.option("--timeout", type=float, metavar="SECONDS", help="End when nothing came for so long.")
@click.option("--number", "-n", type=click.IntRange(min=1), metavar="N", help="End after so many.")
def command(target: str, output: str | None, timeout: float | None, number: int | None) -> None:
    """Print what comes out of a pipe, as lines of JSON.

    The results in the pipe's output are printed as they come, until Ctrl-C. A result is acknowledged when the next
    one is read: one that was not printed comes again.
    """
    logs.set_up()
    streams.demand(1)  # what nobody sees is not taken
    with client_named(target) as client:
        if output is not None:
            client.output = output
        with client.results(timeout) as found:
            for count, result in enumerate(found, 1):
                click.echo(json.dumps(result))
                if count == number:
                    break
