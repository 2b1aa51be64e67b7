"""Removing: queues are emptied or deleted, after they were named and the domain was typed."""

from __future__ import annotations

import click

from sqspipes.cli import asking, logs
from sqspipes.cli.options import shared
from sqspipes.cli.targets import client_named, target_argument
from sqspipes.client import TaskClient

_yes_option = click.option(
    "--yes-domain", metavar="NAME", help="The domain, for scripts: nothing is asked then."
)


@click.command()
@shared
@target_argument
@_yes_option
def purge(target: str, yes_domain: str | None) -> None:
    """Empty the queues of a pipe, dead letters too."""
    logs.set_up()
    with client_named(target) as client:
        _confirm(client, "empty", yes_domain)
        client.purge()
        click.echo(f"{asking.count_of(len(client.queue_names), 'queue')} emptied")


@click.command()
@shared
@target_argument
@_yes_option
def delete(target: str, yes_domain: str | None) -> None:
    """Delete the queues of a pipe, with all they hold."""
    logs.set_up()
    with client_named(target) as client:
        _confirm(client, "delete", yes_domain)
        client.delete()
        click.echo(f"{asking.count_of(len(client.queue_names), 'queue')} deleted")


def _confirm(client: TaskClient, verb: str, given: str | None) -> None:
    for name in client.queue_names:
        click.echo(name)
    count = asking.count_of(len(client.queue_names), "queue")
    question = f"To {verb} {count} and lose all they hold, type the domain, {client.domain}:"
    asking.confirm_name(question, client.domain, given, "--yes-domain")
