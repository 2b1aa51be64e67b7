"""Tables: figures as text that is reStructuredText too, and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measuring import SHARE, Figures

Found = Mapping[str, Figures]


def shown(value: float | None) -> str:
    """Return a figure with three digits that say something."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def columns(found: Found) -> list[str]:
    """Return the names of all figures, in order."""
    return list(dict.fromkeys(name for figures in found.values() for name in figures))


def table(found: Found) -> str:
    """Return a table with a line for each system."""
    names = columns(found)
    rows = [[system, *(shown(figures.get(name)) for name in names)] for system, figures in found.items()]
    return drawn(["system", *names], rows)


def drawn(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a simple table of reStructuredText; long heads are broken into lines."""
    heads = [_broken(text) for text in head]
    height = max(map(len, heads))
    heads = [lines + [""] * (height - len(lines)) for lines in heads]
    widths = [
        max(len(cell) for cell in [*lines, *(row[place] for row in rows)]) or 1
        for place, lines in enumerate(heads)
    ]
    rule = "  ".join("=" * width for width in widths)
    lines = [[one[place] for one in heads] for place in range(height)]
    # A cell of several lines has to begin at its left, or it would be taken for a quotation.
    top = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in lines]
    body = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in (rule, *top, rule, *body, rule))


def ratios(found: Found, base: str) -> list[str]:
    """Return a line for each system: its figures as multiples of those of another one, or the shares it has."""
    if not base:
        return [
            f"{system}: share {figures[SHARE]:.2f}" for system, figures in found.items() if SHARE in figures
        ]
    lines = []
    for system, figures in found.items():
        parts = [
            f"{name} {figures[name] / found[base][name]:.2f}x"
            for name in figures
            # Dollars are requests once more.
            if system != base and found[base].get(name) and not name.startswith("$")
        ]
        if parts:
            lines.append(f"{system} / {base}: " + ", ".join(parts))
    return lines


def _broken(text: str, width: int = 16) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
