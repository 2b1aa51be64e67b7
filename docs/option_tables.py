"""Makes the tables of a task's options in README and guide, from the table that registration goes by.

``python docs/option_tables.py`` writes them anew; a test says when that was forgotten.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from sqspipes.tasks.registration import OPTIONS, Option

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.rst", ROOT / "docs" / "guide.rst")
BEGIN, END = ".. task-options-begin", ".. task-options-end"

#: Characters of the two columns.
WIDTHS = (28, 90)


def table() -> str:
    """Return the table of all options of a task."""
    rule = " ".join("=" * width for width in WIDTHS)
    head = _row("option", "meaning; \\* is the client's if the task says nothing")
    return "\n".join([rule, head, rule, *(_row(_named(option), option.doc) for option in OPTIONS), rule])


def _named(option: Option) -> str:
    shown = option.name if option.default is None else f"{option.name}={_literal(option.default)}"
    return f"``{shown}``" + (" \\*" if option.inherited else "")


def _literal(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _row(first: str, second: str) -> str:
    lines = textwrap.wrap(second, WIDTHS[1], break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        f"{name:<{WIDTHS[0]}} {line}" for name, line in zip([first] + [""] * len(lines), lines, strict=False)
    )


def written(text: str) -> str:
    """Return a page with the table between its two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Write the tables."""
    for page in PAGES:
        page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
