"""Dead: a task's dead letters, listed, shown, sent back or deleted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import click

from sqspipes import DeadLetter, DeadLetters, OptionError, TaskClient, indented, one_line, printable
from sqspipes.cli.shared import asking, completing, logs
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import client_named, target_argument
from sqspipes.console import tables
from sqspipes.console.text import count_of

#: Characters of an id that a terminal shows; the beginning of an id is enough to name it.
SHORT = 12

#: The exit code where some letters could not be listed, or were not sent or deleted.
NOT_ALL = 4

#: The names of what a letter tells.
LETTER = tuple(field.name for field in fields(DeadLetter))


@dataclass(frozen=True, slots=True)
class Box:
    """The dead letters of one task."""

    client: TaskClient
    task: str

    @contextmanager
    def listing(self) -> Iterator[DeadLetters]:
        """Give all of them, one after the other; what was taken is given back at the end."""
        with closing(self.client.dead_letters(self.task)) as letters:
            yield letters

    def named(self, ids: Sequence[str]) -> list[DeadLetter]:
        """Return those with the given ids, or whose ids begin with them; no further ones than needed are listed."""
        exact: dict[str, DeadLetter] = {}
        begun: dict[str, dict[str, DeadLetter | None]] = {id: {} for id in ids}
        count = 0
        with self.listing() as letters:
            for letter in letters:
                count += 1
                for id in ids:
                    if letter.id == id:
                        exact.setdefault(id, letter)
                    elif letter.id.startswith(id):  # the first is kept, of others the id alone
                        begun[id].setdefault(letter.id, None if begun[id] else letter)
                if len(exact) == len(begun):
                    break
        return [exact.get(id) or self._begun(id, begun[id], count) for id in ids]

    def _begun(self, id: str, found: Mapping[str, DeadLetter | None], count: int) -> DeadLetter:
        if len(found) > 1:
            has = count_of(len(found), "dead letter")
            raise OptionError(f"id {id!r} begins the ids of {has} of task {self.task!r}: write more of it")
        for letter in found.values():
            if letter is not None:
                return letter
        has = count_of(count, "dead letter")
        raise OptionError(f"id {id!r} is not found: there are {has} of task {self.task!r}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The letters that are meant: ``ids`` are keys, None for all there are; ``more``: more than were counted."""

    ids: list[str] | None
    count: int
    more: bool = False

    def __str__(self) -> str:
        counted = count_of(self.count, "dead letter")
        return f"{counted}, and those that were not listed," if self.more else counted


@click.group("dead", invoke_without_command=True)
@shared
@target_argument
@click.argument("task", shell_complete=completing.tasks)
@click.pass_context
def command(context: click.Context, target: str, task: str) -> None:
    """List, show, redrive or discard the dead letters of a task.

    Without a further command they are listed. The beginning of an id is enough to name one. The task may be one that
    is registered no more. Exit code 4: some could not be listed, or were not sent or deleted.
    """
    logs.set_up()
    context.obj = Box(context.with_resource(client_named(target)), task)
    if context.invoked_subcommand is None:
        context.invoke(list_letters)


@command.command("list")
@shared
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each, with value and traceback.")
@click.pass_obj
def list_letters(box: Box, as_json: bool = False) -> None:
    """List them."""
    with box.listing() as letters:
        if as_json:
            for letter in letters:
                click.echo(json.dumps({name: getattr(letter, name) for name in LETTER}))
        else:
            _list_as_table(box.task, letters)
    if not letters.whole:  # the log says why
        click.get_current_context().exit(NOT_ALL)


def _list_as_table(task: str, letters: DeadLetters) -> None:
    console = tables.console()
    table = tables.table("id", "died", "attempts#", "error")
    for letter in letters:
        id = letter.id[:SHORT] if console.is_terminal else letter.id
        error = f"{letter.error_type}: {letter.error}"[: tables.NO_TERMINAL]
        table.add_row(id, _time(letter.died), str(letter.attempts), " ".join(error.split()))
    if table.row_count:
        tables.show(table, console)
    elif letters.whole:
        click.echo(f"{task} has no dead letters", err=True)


@command.command("show")
@shared
@click.argument("id")
@click.pass_obj
def show_letter(box: Box, id: str) -> None:
    """Show one of them: its value, its error and the traceback."""
    (letter,) = box.named([id])
    for line in _described(letter):
        click.echo(line)


def _described(letter: DeadLetter) -> Iterator[str]:
    """Yield a letter as it is shown, part for part."""
    group = "none" if letter.group is None else one_line(letter.group)
    yield f"id         {one_line(letter.id)}"
    yield f"task       {letter.task}, priority {letter.priority}, group {group}"
    yield f"first put  {_time(letter.first_put)}"
    yield f"died       {_time(letter.died)}, {letter.attempts} attempts, {letter.redrives} redrives before"
    yield f"error      {one_line(letter.error_type)}: {one_line(letter.error)}"
    yield f"value      {printable(_indented(letter.value), lines=True)}"
    if letter.traceback:
        yield f"\n{indented(letter.traceback.rstrip())}"


def _indented(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:  # in one line it may be nested more deeply
        return json.dumps(value, ensure_ascii=False)


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


@command.command()
@_choosing
@click.option("--to", metavar="TASK", shell_complete=completing.tasks, help="To another task.")
@click.pass_obj
def redrive(box: Box, ids: tuple[str, ...], all_: bool, error: str | None, yes: bool, to: str | None) -> None:
    """Send them to their task again, with fresh attempts."""
    chosen, target = _chosen(box, ids, all_, error), to or box.task
    if chosen.count:
        asking.confirm(f"Send {chosen} to {target} again?", yes)
    count = box.client.redrive(box.task, chosen.ids, to=to) if chosen.count else 0
    click.echo(f"{count_of(count, 'dead letter')} sent to {target} again")
    _tell_left(chosen, count)


@command.command()
@_choosing
@click.pass_obj
def discard(box: Box, ids: tuple[str, ...], all_: bool, error: str | None, yes: bool) -> None:
    """Delete them for good."""
    chosen = _chosen(box, ids, all_, error)
    if chosen.count:
        asking.confirm(f"Delete {chosen} of {box.task} for good?", yes)
    wanted = "all" if chosen.ids is None else chosen.ids
    count = box.client.discard(box.task, wanted) if chosen.count else 0
    click.echo(f"{count_of(count, 'dead letter')} of {box.task} deleted")
    _tell_left(chosen, count)


def _tell_left(chosen: Chosen, count: int) -> None:
    """Say that letters are left which were meant, and end with the code for it."""
    if count < chosen.count:
        left = count_of(chosen.count - count, "dead letter")
        click.echo(f"{left} more was meant, and is there still or was taken by somebody else", err=True)
        click.get_current_context().exit(NOT_ALL)


def _chosen(box: Box, ids: Sequence[str], all_: bool, error: str | None) -> Chosen:
    """Return the letters that are meant."""
    if sum([bool(ids), all_, error is not None]) != 1:
        raise click.UsageError("say which: their ids, or --all, or --error TYPE")
    if ids:
        named = list(dict.fromkeys(letter.key for letter in box.named(ids)))
        return Chosen(named, len(named))
    with box.listing() as letters:  # an id may be that of several, which are not all meant
        found = [letter.key for letter in letters if all_ or letter.error_type == error]
    # What was not listed is meant by --all, too: it is found once those before it are gone.
    return Chosen(None if all_ and not letters.whole else found, len(found), all_ and not letters.whole)


def _time(seconds: float) -> str:
    """Return a time, in the time zone here; as it is if no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s"
