"""Removing: queues are emptied or deleted after they were named and the domain was typed."""

from __future__ import annotations

from collections.abc import Callable

import click

from sqspipes import TaskClient
from sqspipes.cli.shared import asking, logs
from sqspipes.cli.shared.targets import client_named
from sqspipes.console.text import count_of

yes_option = click.option(
    "--yes-domain", metavar="NAME", help="The domain, for scripts: nothing is asked then."
)


def remove(
    target: str, given: str | None, verb: str, action: Callable[[TaskClient], None], done: str
) -> None:
    """Do what empties or deletes a pipe's queues, once the domain was typed or given."""
    logs.set_up()
    with client_named(target) as client:
        for name in client.queue_names:
            click.echo(name)
        count = count_of(len(client.queue_names), "queue")
        question = f"To {verb} {count} and lose all they hold, type the domain, {client.domain}:"
        asking.confirm_name(question, client.domain, given, "--yes-domain")
        action(client)
        click.echo(f"{count} {done}")
