"""Tables: plain ones, as wide as the terminal, and as wide as they need to be elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Column, Table

from sqspipes import one_line

#: Columns where there is no terminal: lines are not cut then.
NO_TERMINAL = 1_000

#: Characters of the last column that a narrow terminal shows, if it is no number.
LEAST_TEXT = 8

#: The columns that a narrow terminal leaves out first; then it is those on the right.
LEAST_TELLING = ("done/s, lately", "priority", "target", "died", "attempts", "in flight")


def console() -> Console:
    """Return standard output: with colours on a terminal, without where there is none or NO_COLOR is set."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = NO_TERMINAL
    return found


def show(shown: RenderableType, on: Console) -> None:
    """Print a table, without the spaces that would fill it up where there is no terminal."""
    if on.is_terminal:
        on.print(fitted(shown, on.width))
        return
    text = plain(shown)
    if text is None:
        with on.capture() as captured:
            on.print(shown)
        text = captured.get().splitlines()
    click.echo("\n".join(line.rstrip() for line in text))


def plain(shown: RenderableType) -> list[str] | None:
    """Return the lines of texts and tables as rich prints them without a terminal; None where it has to do so.

    A table of 300 lines takes rich 0.1 s.
    """
    if isinstance(shown, Group):
        parts = [plain(one) for one in shown.renderables]
        return None if None in parts else [line for part in parts for line in part or ()]
    if isinstance(shown, str):
        return shown.splitlines() if cell_len(shown) <= NO_TERMINAL else None
    if not isinstance(shown, Escaped) or shown.title or not shown.columns:
        return None
    columns = [_plain_column(column) for column in shown.columns]
    if sum(cell_len(column[0]) + 2 for column in columns) > NO_TERMINAL:
        return None
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]


def _plain_column(column: Column) -> list[str]:
    cells = [str(cell) for cell in (column.header, *column.cells)]
    most, right = max(map(cell_len, cells)), column.justify == "right"
    cells = [cell.rstrip() for cell in cells]
    blanks = [" " * (most - cell_len(cell)) for cell in cells]
    return [blank + cell if right else cell + blank for cell, blank in zip(cells, blanks, strict=True)]


def fitted(shown: RenderableType, width: int) -> RenderableType:
    """Return tables as a narrow terminal has room for them: less telling columns go, the first one is kept whole."""
    if isinstance(shown, Group):
        return Group(*(fitted(one, width) for one in shown.renderables))
    if not isinstance(shown, Escaped):
        return shown
    columns = [(column, max(map(_width, (column.header, *column.cells)))) for column in shown.columns]
    for name in (*LEAST_TELLING, *(column.header for column, _ in reversed(columns[1:]))):
        if _room(columns) <= width:
            break
        columns = [columns[0], *((column, size) for column, size in columns[1:] if column.header != name)]
    made = table(*(f"{column.header}{'#' if column.justify == 'right' else ''}" for column, _ in columns))
    for cells in zip(*(column.cells for column, _ in columns), strict=True):
        made.add_row(*cells)
    taken = 2 * len(columns)
    for column, (_, size) in zip(made.columns, columns, strict=True):
        column.width = min(size, width - taken)
        taken += column.width
    return made


def _width(cell: RenderableType) -> int:
    return cell_len(str(cell))


def _room(columns: Sequence[tuple[Column, int]]) -> int:
    """Return the characters of a line that a table needs: the last text, if it is no number, may be cut.

    Versions of rich before 15 count the blanks behind the last column, too.
    """
    *others, (last, size) = columns
    least = size if last.justify == "right" or not others else min(size, LEAST_TEXT)
    return sum(size for _, size in others) + least + 2 * len(columns)


class Escaped(Table):
    """A table whose texts command no terminal and are one line each."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row."""
        super().add_row(*(one_line(one) if isinstance(one, str) else one for one in cells), **options)


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
