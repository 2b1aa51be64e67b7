"""Demo: a pipe that runs without any account."""

from __future__ import annotations

import click

from sqspipes.cli.shared.options import shared


@click.command("demo")
@shared
@click.argument("packages", nargs=-1)
def command(packages: tuple[str, ...]) -> None:
    """See a pipe run, without any account.

    It takes a census of Python's standard library; one of its worker processes is killed half-way. PACKAGES: only
    those of the library, json for instance.
    """
    from sqspipes.demo import main  # it imports what no other command needs

    click.get_current_context().exit(main(packages))
