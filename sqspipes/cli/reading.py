"""Reading: what shows the package itself: a demonstration, and the usage guide."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sqspipes.cli.options import shared


@click.command()
@shared
@click.argument("packages", nargs=-1)
def demo(packages: tuple[str, ...]) -> None:
    """See a pipe run, without any account.

    It takes a census of Python's standard library; one of its worker processes is killed half-way. PACKAGES: only
    those of the library, json for instance.
    """
    from sqspipes.demo import show  # it imports what no other command needs

    click.get_current_context().exit(show.main(packages))


@click.command()
@shared
def guide() -> None:
    """Show the usage guide, one page of text."""
    text = guide_text()
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def guide_text() -> str:
    """Return the guide, from the package; in a checkout of the sources, from their docs."""
    package = Path(__file__).parents[1]
    shipped = package / "guide.rst"
    file = shipped if shipped.exists() else package.parent / "docs" / "guide.rst"
    return file.read_text(encoding="utf-8")
