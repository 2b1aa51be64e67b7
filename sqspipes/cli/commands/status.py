"""Status: what waits, what is under way and what died, once or again and again."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from sqspipes import OptionError, Status, TaskClient, one_line
from sqspipes.cli.shared import logs
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import client_named, target_argument
from sqspipes.console import tables

#: Seconds between two looks, at the most: a year.
LONGEST_EVERY = 31_536_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A status, and when it was taken (monotonic clock)."""

    status: Status
    at: float

    def held(self, task: str) -> int:
        """Return how many messages a task has, waiting and in flight."""
        levels = [level for level in self.status.levels if level.task == task]
        return sum(level.waiting + level.in_flight for level in levels)

    def rate(self, before: Snapshot | None, task: str) -> float | None:
        """Return by how many messages a second a task's queues have shrunk."""
        if before is None or self.at <= before.at:
            return None
        return (before.held(task) - self.held(task)) / (self.at - before.at)


@click.command("status")
@shared
@target_argument
@click.option("--watch", is_flag=True, help="Look again and again, with rates and time to empty.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    callback=lambda context, option, value: _checked(value),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="The time between two looks of --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each look.")
def command(target: str, watch: bool, every: float, as_json: bool) -> None:
    """Show what waits, what is in flight and what died."""
    logs.set_up()
    with client_named(target) as client:
        if watch:
            _watch(client, every, as_json)
        else:
            _show(client.status(), client.domain, as_json)


def _checked(every: float) -> float:
    if not every <= LONGEST_EVERY:  # nan, too
        raise OptionError(f"--every is {every}: allowed is seconds, 0.1 to {LONGEST_EVERY:,}")
    return every


def _show(status: Status, domain: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"domain": domain, **asdict(status)}))
    else:
        tables.show(_rendered(Snapshot(status, time.monotonic()), None), tables.console())


def _watch(client: TaskClient, every: float, as_json: bool) -> None:
    """Show looks until an interrupt: in place on a terminal, one below the other elsewhere."""
    console, nothing = tables.console(), threading.Event()
    before: Snapshot | None = None
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    if live is not None:
        live.start()
    try:
        while True:
            look = Snapshot(client.status(), time.monotonic())
            if live is not None:
                live.update(tables.fitted(_rendered(look, before), console.width), refresh=True)
            elif as_json:
                _show(look.status, client.domain, as_json)
            else:
                tables.show(_rendered(look, before), console)
            before = look
            nothing.wait(every)
    finally:
        if live is not None:
            live.stop()


def _rendered(look: Snapshot, before: Snapshot | None) -> RenderableType:
    parts: list[RenderableType] = [_levels(look, before)]
    if any(level.approximate for level in look.status.levels):
        parts.append("The broker estimates its counts.")
    for queue, count in look.status.strays.items():
        parts.append(f"{queue} belongs to no task here and holds {count:,}")
    if look.status.outage is not None:
        parts.append(f"The broker does not answer: {one_line(look.status.outage)}")
    return Group(*parts)


def _levels(look: Snapshot, before: Snapshot | None) -> Table:
    rates = [] if before is None else ["fewer/s#", "empty in#"]
    paused = look.status.paused
    state = ["state"] if paused else []
    table = tables.table("task", "priority#", "waiting#", "in flight#", "dead#", *rates, *state)
    last = None
    for level in look.status.levels:
        cells = [str(level.priority), tables.figure(level.waiting), tables.figure(level.in_flight)]
        if level.task == last:
            table.add_row("", *cells)
            continue
        last = level.task
        cells.append(tables.figure(level.dead))
        cells += _pace(look, before, level.task) if before else []
        table.add_row(level.task, *cells, *(["paused" if level.task in paused else ""] if paused else []))
    return table


def _pace(look: Snapshot, before: Snapshot, task: str) -> list[str]:
    """Return by how much a task's queues shrink, and when they will be empty if that goes on."""
    rate, held = look.rate(before, task), look.held(task)
    if rate is None:
        return ["", ""]
    left = "" if rate <= 0 else in_words(held / rate)
    return [tables.figure(rate), left if held else "-"]


def in_words(seconds: float) -> str:
    """Return seconds as people say them."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
