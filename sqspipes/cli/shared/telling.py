"""Telling: the control word, which running processes obey on every machine."""

from __future__ import annotations

from collections.abc import Callable

import click

from sqspipes import OptionError, TaskClient
from sqspipes.cli.shared import logs
from sqspipes.cli.shared.targets import client_named


def tell(target: str, tasks: tuple[str, ...], command: Callable[..., None], done: str) -> None:
    """Pause or resume tasks of a target, or all of them, and say so."""
    logs.set_up()
    with client_named(target) as client:
        named = _named(client, tasks)
        command(client, *named)
        click.echo(f"{done}: {', '.join(named)}; {heeded(client)}")


def _named(client: TaskClient, tasks: tuple[str, ...]) -> list[str]:
    """Return the tasks that are meant; one that is not there was not understood."""
    try:
        return [client.get_task_by_name(task).name for task in tasks] or [task.name for task in client.tasks]
    except OptionError as error:
        raise click.UsageError(str(error)) from error


def heeded(client: TaskClient) -> str:
    """Say when running processes will do what they were told."""
    seconds = client.control_interval
    if seconds is None:
        return "no running process heeds it, as the client's control_interval is None"
    return f"running processes heed it within {seconds:g} s"
