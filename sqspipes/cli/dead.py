"""Dead: a task's dead letters, listed, shown, sent back or deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import click

from sqspipes.cli import asking, completing, logs, tables
from sqspipes.cli.options import shared
from sqspipes.cli.targets import client_named, target_argument
from sqspipes.client import TaskClient
from sqspipes.errors import OptionError
from sqspipes.letters import DeadLetter

#: Characters of an id that a terminal shows; the beginning of an id is enough to name it.
SHORT = 12


@dataclass(frozen=True, slots=True)
class Box:
    """The dead letters of one task."""

    client: TaskClient
    task: str

    def letters(self) -> list[DeadLetter]:
        """Return all of them."""
        return list(self.client.dead_letters(self.task))

    def chosen(self, letters: Sequence[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
        """Return those with the given ids, or whose ids begin with them."""
        return [self._one(letters, id) for id in ids]

    def _one(self, letters: Sequence[DeadLetter], id: str) -> DeadLetter:
        found = [letter for letter in letters if letter.id == id]
        found = found or [letter for letter in letters if letter.id.startswith(id)]
        if len({letter.id for letter in found}) > 1:
            has = asking.count_of(len(found), "dead letter")
            raise OptionError(f"id {id!r} begins the ids of {has} of task {self.task!r}: write more of it")
        if not found:
            has = asking.count_of(len(letters), "dead letter")
            raise OptionError(f"id {id!r} is not found: there are {has} of task {self.task!r}")
        return found[0]


@click.group(invoke_without_command=True)
@shared
@target_argument
@click.argument("task", shell_complete=completing.tasks)
@click.pass_context
def dead(context: click.Context, target: str, task: str) -> None:
    """List, show, redrive or discard the dead letters of a task.

    Without a further command they are listed. The beginning of an id is enough to name one.
    """
    logs.set_up()
    client = context.with_resource(client_named(target))
    context.obj = Box(client, client.get_task_by_name(task).name)
    if context.invoked_subcommand is None:
        context.invoke(list_letters)


@dead.command("list")
@shared
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each, with value and traceback.")
@click.pass_obj
def list_letters(box: Box, as_json: bool = False) -> None:
    """List them."""
    letters = box.letters()
    if as_json:
        for letter in letters:
            click.echo(json.dumps(asdict(letter)))
        return
    if not letters:
        click.echo(f"{box.task} has no dead letters", err=True)
        return
    console = tables.console()
    table = tables.table("id", "died", "attempts#", "error")
    for letter in letters:
        id = letter.id[:SHORT] if console.is_terminal else letter.id
        error = " ".join(asking.printable(f"{letter.error_type}: {letter.error}").split())
        table.add_row(id, _time(letter.died), str(letter.attempts), error)
    tables.show(table, console)


@dead.command("show")
@shared
@click.argument("id")
@click.pass_obj
def show_letter(box: Box, id: str) -> None:
    """Show one of them: its value, its error and the traceback."""
    (letter,) = box.chosen(box.letters(), [id])
    for line in _described(letter):
        click.echo(asking.printable(line))


def _described(letter: DeadLetter) -> Iterator[str]:
    """Yield a letter as it is shown, part for part."""
    group = "none" if letter.group is None else letter.group
    yield f"id         {letter.id}"
    yield f"task       {letter.task}, priority {letter.priority}, group {group}"
    yield f"first put  {_time(letter.first_put)}"
    yield f"died       {_time(letter.died)}, {letter.attempts} attempts, {letter.redrives} redrives before"
    yield f"error      {letter.error_type}: {letter.error}"
    yield f"value      {json.dumps(letter.value, indent=2, ensure_ascii=False)}"
    if letter.traceback:
        yield f"\n{letter.traceback.rstrip()}"


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the three ways to choose letters, and the one to answer beforehand."""
    for add in (
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--error", metavar="TYPE", help="Those with this type of error, ValueError for instance."
        ),
        click.option("--all", "all_", is_flag=True, help="All of them."),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        shared,
    ):
        command = add(command)
    return command


@dead.command()
@_choosing
@click.pass_obj
def redrive(box: Box, ids: tuple[str, ...], all_: bool, error: str | None, yes: bool) -> None:
    """Send them to their task again, with fresh attempts."""
    chosen = _chosen(box, ids, all_, error)
    if chosen:
        question = f"Send {asking.count_of(len(chosen), 'dead letter')} to {box.task} again?"
        asking.confirm(question, yes)
    count = box.client.redrive(box.task, chosen) if chosen else 0
    click.echo(f"{asking.count_of(count, 'dead letter')} sent to {box.task} again")


@dead.command()
@_choosing
@click.pass_obj
def discard(box: Box, ids: tuple[str, ...], all_: bool, error: str | None, yes: bool) -> None:
    """Delete them for good."""
    chosen = _chosen(box, ids, all_, error)
    if chosen:
        question = f"Delete {asking.count_of(len(chosen), 'dead letter')} of {box.task} for good?"
        asking.confirm(question, yes)
    count = box.client.discard(box.task, chosen) if chosen else 0
    click.echo(f"{asking.count_of(count, 'dead letter')} of {box.task} deleted")


def _chosen(box: Box, ids: Sequence[str], all_: bool, error: str | None) -> list[str]:
    """Return the ids of the letters that are meant."""
    if sum([bool(ids), all_, error is not None]) != 1:
        raise click.UsageError("say which: their ids, or --all, or --error TYPE")
    letters = box.letters()
    if ids:
        letters = box.chosen(letters, ids)
    elif error is not None:
        letters = [letter for letter in letters if letter.error_type == error]
    return list(dict.fromkeys(letter.id for letter in letters))


def _time(seconds: float) -> str:
    """Return a time, in the time zone here."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
