"""Root: the command that all others are below, and its hints."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import click

from sqspipes import did_you_mean
from sqspipes.cli import commands
from sqspipes.cli.shared.options import shared

#: The exit code of Ctrl-C.
INTERRUPTED = 130

#: Further names of commands.
ALIASES = {"push": "put"}


class Commands(click.Group):
    """A group that lists its commands in the order in which one meets them, and knows what was meant."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names in the order in which people meet them."""
        return commands.names()

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, by its name or another name of it."""
        name = ALIASES.get(name, name)
        return commands.command(name) if name in commands.names() else None

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant, or say what it might be."""
        if args and not args[0].startswith("-") and self.get_command(context, args[0]) is None:
            raise click.UsageError(self._hint(context, args), context)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run the command; Ctrl-C ends it, and only a terminal gets a new line behind its ``^C``."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)
            context.exit(INTERRUPTED)

    def _hint(self, context: click.Context, args: list[str]) -> str:
        name, *others = args
        if others and self.get_command(context, others[0]) is not None:
            return f"The command comes first: sqspipes {others[0]} {' '.join([name, *others[1:]])}"
        near = did_you_mean(name, [*commands.names(), *ALIASES])
        return f"There is no command {name!r}{near}: there are {', '.join([*commands.names(), *ALIASES])}"


def _show_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        try:
            version = metadata.version("sqspipes")
        except metadata.PackageNotFoundError:
            version = "not installed, run from its sources"
        click.echo(f"sqspipes {version}")
        context.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""TARGET is module:client, module:PipelineClass, or a name that `sqspipes list` shows.

\b
A first pipe: write this into pipelines.py
    from sqspipes import TaskClient
    def double(n):
        return 2 * n
    def show(n):
        print(n)
    numbers = TaskClient("numbers", broker="sqlite:///numbers.db")
    numbers.register_tasks([double, show])
and then, in the same folder, type
    sqspipes put numbers 1 2 3
    sqspipes run numbers

Exit codes: 0 done, 1 an error, 2 not understood, 3 drained with dead letters, 4 not all of
the dead letters, 130 Ctrl-C.""",
)
@shared
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Chain plain functions over FIFO queues: run them, feed them, watch them, mend them."""
