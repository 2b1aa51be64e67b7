"""The options of the chaos suite, and the table of what its scenarios did; hooks that tests/conftest.py has."""

from __future__ import annotations

import json
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the chaos suite."""
    group = parser.getgroup("chaos")
    group.addoption("--full", action="store_true", help="whole rounds of the chaos scenarios, not short ones")
    group.addoption(
        "--seed", type=int, help="the seed of the chaos scenarios; else each draws one, and prints it"
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what each scenario did."""
    reports = (report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ()))
    rows = [value for report in reports for name, value in report.user_properties if name == "chaos"]
    if not rows:
        return
    terminalreporter.section("chaos")
    for row in sorted(rows, key=lambda row: (_number(row["scenario"]), row["broker"])):
        terminalreporter.line(_line(row))


def _number(scenario: str) -> tuple[int, str]:
    head = scenario.split(" ", 1)[0]
    return (int(head) if head.isdecimal() else 99), scenario


def _line(row: dict[str, Any]) -> str:
    figures = [f"{row.get(name, '-')} {label}" for name, label in _LABELS.items()]
    further = {
        key: value for key, value in row.items() if key not in (*_LABELS, "scenario", "broker", "seed")
    }
    end = f", {json.dumps(further)}" if further else ""
    return f"{row['scenario']} [{row['broker']}]: {', '.join(figures)}{end} (seed {row['seed']})"


_LABELS = {
    "messages": "messages",
    "faults": "faults",
    "lost": "lost",
    "twice": "handed on twice",
    "disordered": "groups out of order",
    "repeated": "calls repeated",
    "seconds": "s to recover",
}
