"""Charts: bars and a line, as SVG without styles or scripts, in colours that are read on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from benchmarks.tables import shown

WIDTH, LINE, LEFT, RIGHT = 720, 30, 200, 70

#: Grey that has a contrast of four to one to white as to GitHub's dark grey; ours stands out.
INK, OURS, OTHERS, SECOND = "#737b85", "#2f81f7", "#8b949e", "#d29922"

FONT = 'font-family="system-ui, sans-serif" font-size="14"'


def bars(title: str, values: Mapping[str, float], ours: str) -> str:
    """Return horizontal bars, a line each."""
    top, most = 48, max(values.values())
    parts = [_text(0, 22, title, size=16)]
    for place, (name, value) in enumerate(values.items()):
        y = top + place * LINE
        width = max(1.0, (WIDTH - LEFT - RIGHT) * value / most)
        colour = OURS if name.startswith(ours) else OTHERS
        parts += [
            _text(LEFT - 10, y + 15, name, anchor="end"),
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{LINE - 10}" rx="3" fill="{colour}"/>',
            _text(LEFT + width + 8, y + 15, shown(value)),
        ]
    return _svg(title, top + LINE * len(values), parts)


def lines(title: str, below: str, places: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return a line for each series over evenly spaced places, on a logarithmic scale; the lower series first."""
    height, bottom, top = 320, 260, 78
    most = max(max(values) for values in series.values())
    least = min(min(values) for values in series.values()) / 2
    step = (WIDTH - 120) / (len(places) - 1)
    parts = [_text(0, 22, title, size=16), _rule(60, bottom, WIDTH - 60)]
    parts += [_text(60 + step * at, bottom + 22, place, anchor="middle") for at, place in enumerate(places)]
    parts.append(_text(WIDTH / 2, bottom + 46, below, anchor="middle"))
    for number, (name, values) in enumerate(series.items()):
        colour = (OURS, SECOND, OTHERS)[number]
        points = [
            (60 + step * at, bottom - (bottom - top) * math.log(value / least) / math.log(most / least))
            for at, value in enumerate(values)
        ]
        parts.append(
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none"'
            f' stroke="{colour}" stroke-width="2.5"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        # The lower line's figures stand below it, the other's above.
        parts += [
            _text(x, y + (20 if number == 0 else -10), shown(value), anchor="middle", size=12, colour=colour)
            for (x, y), value in zip(points, values, strict=True)
        ]
        parts.append(_text(60 + 180 * number, 44, f"● {name}", colour=colour))
    return _svg(title, height, parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 14, colour: str = INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _rule(left: float, y: float, right: float) -> str:
    return f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="{INK}" stroke-opacity="0.5"/>'


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
    return "\n".join(
        [f'{head} height="{height}" {FONT} role="img">', f"<title>{title}</title>", *parts, "</svg>", ""]
    )
