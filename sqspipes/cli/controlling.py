"""Controlling: the control word, which running processes obey on every machine."""

from __future__ import annotations

from collections.abc import Callable

import click

from sqspipes.cli import logs
from sqspipes.cli.options import shared
from sqspipes.cli.targets import client_named, target_argument, tasks_argument
from sqspipes.client import TaskClient
from sqspipes.errors import OptionError


@click.command()
@shared
@target_argument
@tasks_argument
def pause(target: str, tasks: tuple[str, ...]) -> None:
    """Have tasks, or all, take nothing in until they are resumed.

    It holds for every process on every machine, also for those that start later. What they hold already is finished.
    """
    _tell(target, tasks, TaskClient.pause, "paused")


@click.command()
@shared
@target_argument
@tasks_argument
def resume(target: str, tasks: tuple[str, ...]) -> None:
    """Let paused tasks, or all, go on."""
    _tell(target, tasks, TaskClient.resume, "resumed")


@click.command()
@shared
@target_argument
def stop(target: str) -> None:
    """Stop all that runs a pipe now, on every machine.

    Running calls get their time and nothing is lost. What starts later runs.
    """
    logs.set_up()
    with client_named(target) as client:
        client.stop_all()
        click.echo(f"told all to stop; {_heeded(client)}, what starts from now on runs")


def _tell(target: str, tasks: tuple[str, ...], command: Callable[..., None], done: str) -> None:
    logs.set_up()
    with client_named(target) as client:
        named = _named(client, tasks)
        command(client, *named)
        click.echo(f"{done}: {', '.join(named)}; {_heeded(client)}")


def _named(client: TaskClient, tasks: tuple[str, ...]) -> list[str]:
    """Return the tasks that are meant; one that is not there was not understood."""
    try:
        return [client.get_task_by_name(task).name for task in tasks] or [task.name for task in client.tasks]
    except OptionError as error:
        raise click.UsageError(str(error)) from error


def _heeded(client: TaskClient) -> str:
    seconds = client.control_interval
    if seconds is None:
        return "no running process heeds it, as the client's control_interval is None"
    return f"running processes heed it within {seconds:g} s"
