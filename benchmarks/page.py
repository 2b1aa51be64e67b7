"""Page: ``figures.json`` keeps what was found; from it come the charts and a part of ``docs/performance.rst``."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sqlite3
import textwrap
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import charts, measuring
from benchmarks.jobs import JOBS, ONE_CORE, OURS
from benchmarks.running import ROOT
from benchmarks.tables import Found, table

FIGURES = Path(__file__).with_name("figures.json")
PAGE = ROOT / "docs" / "performance.rst"
STATIC = ROOT / "docs" / "_static"

BEGIN, END = ".. figures-begin", ".. figures-end"


def machine() -> str:
    """Say on what the figures were found."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores ({platform.machine()}), {platform.system()}, {python}, SQLite {sqlite3.sqlite_version}"


def versions() -> str:
    """Say what was measured."""
    return ", ".join(f"{name} {_version(name)}" for name in ("sqspipes", "boto3", "botocore"))


def command(arguments: Sequence[str]) -> str:
    """Return the command line, as tox takes it."""
    return shlex.join(["tox", "-e", "bench", *(["--"] if arguments else []), *arguments])


def keep(job: str, found: Found, arguments: Sequence[str], runs: int) -> dict[str, Any]:
    """Add what a job found to the figures that are kept; those of another machine or version go."""
    where = {"machine": machine(), "versions": versions()}
    kept: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    if {key: kept.get(key) for key in where} != where:
        kept = {**where, "jobs": {}}
    kept["jobs"][job] = {"command": command(arguments), "runs": runs, "systems": found}
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return kept


def write(kept: dict[str, Any]) -> None:
    """Write the charts and the page's tables."""
    STATIC.mkdir(parents=True, exist_ok=True)
    for name, svg in _charts({name: job["systems"] for name, job in kept["jobs"].items()}).items():
        (STATIC / f"{name}.svg").write_text(svg, encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{_tables(kept)}\n{END}{after}", encoding="utf-8")


def _charts(jobs: dict[str, Found]) -> dict[str, str]:
    made = {}
    busy, steady, waited = (jobs.get(name, {}) for name in ("busy", "steady", "linger"))
    if busy:
        values = {system: figures[measuring.ITEMS] for system, figures in busy.items()}
        made["items"] = charts.bars("Messages a second through two tasks, 10 ms to the server", values, OURS)
        busy = {system: figures for system, figures in busy.items() if not system.endswith(ONE_CORE)}
        values = {system: figures[measuring.REQUESTS] for system, figures in busy.items()}
        made["requests"] = charts.bars("Requests per message and task, busy", values, OURS)
        found = {
            **{f"{system}, busy": figures for system, figures in busy.items()},
            **{f"{system}, steady": figures for system, figures in steady.items()},
            **{f"{OURS}, {value}": figures for value, figures in waited.items()},
        }
        values = {system: figures[measuring.DOLLARS] for system, figures in found.items()}
        title = "Dollars per million messages and task: busy, and at a steady 100 a second"
        made["dollars"] = charts.bars(title, values, OURS)
    if waited:
        made["linger"] = charts.lines(
            "100 messages a second: median latency in ms by linger (logarithmic)",
            "linger, seconds",
            [name.partition("=")[2] for name in waited],
            {
                "put to call": [figures[measuring.CALL_P50] for figures in waited.values()],
                "hop to the next task": [figures[measuring.HOP_P50] for figures in waited.values()],
            },
        )
    return made


def _tables(kept: dict[str, Any]) -> str:
    parts = [textwrap.fill(f"On {kept['machine']}; {kept['versions']}.", 118) + "\n"]
    for job in JOBS:
        got = kept["jobs"].get(job.name)
        if got is None:
            continue
        runs = f"median of {got['runs']} runs" if got["runs"] > 1 else "one run"
        title = job.name[0].upper() + job.name[1:]
        parts.append(
            f"\n{title}\n{'~' * len(title)}\n\n{textwrap.fill(job.about, 118)}\n\n{table(got['systems'])}\n"
        )
        parts.append(f"``{got['command']}``, {runs}.\n")
    return "\n".join(parts)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of this folder"
