"""Run: tasks until they are told to stop, or until all is through."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import click

from sqspipes import Fleet, Run, Summary, TaskClient, foreground
from sqspipes.cli.shared import logs, signals
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import client_named, target_argument, tasks_argument
from sqspipes.console import tables
from sqspipes.console.live import show_above, shown

#: The exit code of a run that was drained and made dead letters.
DRAINED_WITH_DEAD = 3

_level = partial(click.option, type=int, metavar="LEVEL")
_seconds = partial(click.option, type=float, metavar="SECONDS")


@click.command("run")
@shared
@target_argument
@tasks_argument
@click.option("--workers", "-t", "--threads", type=int, metavar="N", help="Calls of each task at once.")
@click.option(
    "--output", metavar="NAME", help="Send the last task's results to a queue, or to a list: rpush@key."
)
@click.option("--processes", type=int, metavar="N", help="Processes, each with these workers.")
@click.option("--drain", is_flag=True, help="End when all is through; exit code 3 if anything died.")
@_seconds("--drain-seconds", help="Between the two looks at empty queues of --drain; on SQS 60.")
@_seconds("--stop-timeout", help="For running calls when the run stops.")
@_level("--min-priority", help="Serve this level and higher ones.")
@_level("--max-priority", help="Serve this level and lower ones.")
@click.option(
    "-l",
    "--log-level",
    type=click.Choice(logs.LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
)
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True)
def command(
    target: str,
    tasks: tuple[str, ...],
    output: str | None,
    processes: int | None,
    drain: bool,
    drain_seconds: float | None,
    log_level: str,
    log_format: str,
    **limits: Any,
) -> None:
    """Run a pipe, or some of its tasks, until Ctrl-C.

    A terminal shows them live, with the log above; elsewhere the log goes to standard error.
    """
    asked: dict[str, Any] = {"task_name": list(tasks) or None, **limits, "drain": drain}
    if drain_seconds is not None:
        if not drain:
            raise click.UsageError("--drain-seconds goes with --drain")
        asked["drain"] = drain_seconds
    with_log = partial(logs.set_up, log_level, log_format)
    with_log()
    prepare = partial(_prepare, log_level, log_format)
    with client_named(target) as client:
        if output is not None:
            client.output = output
        if _is_live(log_format, processes):
            summary = _run_live(client, asked, processes, log_level)
        elif processes is not None:
            summary = client.run(**asked, processes=processes, prepare=prepare)
        else:
            summary = client.run(**asked)
    if summary.reason == "drained" and summary.dead:
        click.get_current_context().exit(DRAINED_WITH_DEAD)


def _prepare(log_level: str, log_format: str) -> None:
    """Set up a further process of a run."""
    logs.set_up(log_level, log_format)
    signals.leave_to_parent()


def _is_live(log_format: str, processes: int | None) -> bool:
    """Say whether there is a live view: on Windows what other processes print cannot be brought above it."""
    on_terminal = sys.stdout.isatty() and sys.stderr.isatty() and log_format == "text"
    return on_terminal and (processes is None or os.name == "posix")


def _run_live(client: TaskClient, asked: dict[str, Any], processes: int | None, log_level: str) -> Summary:
    """Run below a live view; the log goes above it, that of further processes too."""
    console = tables.console()
    logs.set_up(log_level, console=console)
    run: Run | Fleet
    if processes is None:
        run = client.start(**asked)
    else:
        prepare, show = partial(_prepare, log_level, "text"), partial(show_above, console)
        run = client.start(**asked, processes=processes, prepare=prepare, show=show)
    with foreground(run), shown(client, run, console):
        return run.wait()
