"""Guide: the usage guide, one page of text."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import sqspipes
from sqspipes.cli.shared.options import shared


@click.command("guide")
@shared
def command() -> None:
    """Show the usage guide, one page of text."""
    text = guide_text()
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def guide_text() -> str:
    """Return the guide, from the package; in a checkout of the sources, from their docs."""
    package = Path(sqspipes.__file__).parent
    shipped = package / "guide.rst"
    file = shipped if shipped.exists() else package.parent / "docs" / "guide.rst"
    return file.read_text(encoding="utf-8")
