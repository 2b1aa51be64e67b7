"""Tables: plain ones, as wide as the terminal, and as wide as they need to be elsewhere."""

from __future__ import annotations

import math
import sys
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table

from sqspipes import lines

#: Columns where there is no terminal: lines are not cut then.
NO_TERMINAL = 1_000


def console() -> Console:
    """Return standard output: with colours on a terminal, without where there is none or NO_COLOR is set."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = NO_TERMINAL
    return found


def show(shown: RenderableType, on: Console) -> None:
    """Print a table, without the spaces that would fill it up where there is no terminal."""
    if on.is_terminal:
        on.print(shown)
        return
    with on.capture() as captured:
        on.print(shown)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


class Escaped(Table):
    """A table whose texts command no terminal and are one line each."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row."""
        super().add_row(*(lines.one_line(one) if isinstance(one, str) else one for one in cells), **options)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table; a column whose name ends in ``#`` has numbers."""
    made = Escaped(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left", header_style="bold"
    )
    for column in columns:
        name = column.removesuffix("#")
        made.add_column(
            name, justify="left" if name == column else "right", no_wrap=True, overflow="ellipsis"
        )
    return made


def figure(number: float) -> str:
    """Return a number as tables show it."""
    return f"{number:,.1f}" if 0 < number < 10 and number != int(number) else f"{number:,.0f}"


#: From nothing to the most, in the characters that terminals have, and in those that all have.
_BARS, _PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#"


def sparkline(values: list[float], width: int, *, plain: bool = False) -> str:
    """Return the last values as a line of bars, the highest for the largest of them."""
    bars = _PLAIN if plain else _BARS
    shown = values[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    highest = len(bars) - 1
    steps = [0 if most <= 0 else min(highest, math.ceil(value / most * highest)) for value in shown]
    return "".join(bars[step] for step in steps).rjust(width)


def is_plain() -> bool:
    """Say whether standard output cannot show more than ASCII."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")
