"""Put: JSON values into a task's queue, from the command line or from standard input."""

from __future__ import annotations

import bisect
import codecs
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import click

from sqspipes import EncodingError, OptionError, PutError, TaskClient, one_line
from sqspipes.cli.shared import completing, logs, streams
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.progress import Progress, progress_of
from sqspipes.cli.shared.targets import client_named, target_argument
from sqspipes.console.text import count_of, in_one_line

#: Characters of a value that an error shows.
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Wishes:
    """Where values go, and what travels with them."""

    task: str | None
    priority: int
    group: Callable[[Any], Any] | str | None
    id: Callable[[Any], Any] | None


@click.command("put", context_settings={"ignore_unknown_options": True})  # -5 is a value
@shared
@target_argument
@click.argument("values", nargs=-1, required=True, metavar="JSON... | -")
@click.option(
    "--task", metavar="NAME", shell_complete=completing.tasks, help="The task; the first one by default."
)
@click.option("--group", metavar="TEXT", help="The group of all: they run in order.")
@click.option("--group-by", metavar="FIELD", help="The field that has a value's group.")
@click.option("--id-by", metavar="FIELD", help="The field that has a value's id.")
@click.option("--priority", type=int, default=0, show_default=True, metavar="LEVEL", help="0 is the lowest.")
def command(
    target: str,
    values: tuple[str, ...],
    task: str | None,
    group: str | None,
    group_by: str | None,
    id_by: str | None,
    priority: int,
) -> None:
    """Put values into a pipe, in the order given; the same as push.

    Each value is JSON, and its id is printed: sqspipes put orders '{"order": 7}' '"a text"' 42. With - values are
    read from standard input, one on each line.
    """
    if group is not None and group_by is not None:
        raise click.UsageError("--group and --group-by exclude each other")
    for option, text in (("--group", group), ("--group-by", group_by), ("--id-by", id_by)):
        _checked_text(option, text)
    logs.set_up()
    chosen = group if group_by is None else _field("--group-by", group_by)
    wishes = Wishes(task, priority, chosen, None if id_by is None else _field("--id-by", id_by))
    if values == ("-",):
        with client_named(target) as client:
            _put_lines(client, wishes)
        return
    parsed = [_argument(index, text) for index, text in enumerate(values, 1)]
    with client_named(target) as client:
        for value in parsed:
            click.echo(one_line(_put_one(client, value, wishes)))


def _put_one(client: TaskClient, value: Any, wishes: Wishes) -> str:
    group = wishes.group(value) if callable(wishes.group) else wishes.group
    id = None if wishes.id is None else wishes.id(value)
    return client.put(value, task=wishes.task, priority=wishes.priority, group=group, id=id)


def _put_lines(client: TaskClient, wishes: Wishes) -> None:
    """Put the lines of standard input as they come, in constant memory."""
    streams.demand(0)
    if sys.stdin.isatty():
        click.echo("One JSON value on each line; Ctrl-D ends.", err=True)
    began = time.monotonic()
    read = Lines(sys.stdin.buffer)
    with progress_of(sys.stdin.buffer) as progress:
        try:
            count = client.put_many(
                read.values(progress),
                task=wishes.task,
                priority=wishes.priority,
                group=wishes.group,
                id=wishes.id,
            )
        except PutError as error:
            before = count_of(error.sent, "value")
            raise click.ClickException(
                f"line {read.number_of(error.index)} was not put, {before} before it: "
                f"{in_one_line(error.__cause__ or error)}"
            ) from error
    seconds = max(time.monotonic() - began, 0.001)
    rate = f"{count / seconds:,.0f}/s"
    click.echo(f"{count_of(count, 'value')} put in {seconds:.1f} s, {rate}", err=True)


class Lines:
    """The values in the lines of a file; lines without one are passed over, and counted."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._passed: list[int] = []  # for each line without a value, how many values came before it

    def number_of(self, index: int) -> int:
        """Return the number of the line that has a value."""
        return 1 + index + bisect.bisect_right(self._passed, index)

    def values(self, progress: Progress) -> Iterator[Any]:
        """Yield the values, as they come."""
        count = 0
        for line in self._file:
            progress.read(len(line))
            if not line.strip():
                self._passed.append(count)
                continue
            yield _parsed("it", _decoded(line), "one JSON value on each line")
            count += 1


#: How texts begin that are not plain UTF-8, the longer ones first.
BEGINNINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    codecs.BOM_UTF8: "UTF-8 with a byte order mark (BOM)",
}


def _decoded(line: bytes) -> str:
    for beginning, name in BEGINNINGS.items():
        if line.startswith(beginning):
            raise EncodingError(f"it is {name}: allowed is UTF-8 without a byte order mark")
    if b"\0" in line:
        raise EncodingError("it has bytes of zero, as UTF-16 has: allowed is UTF-8")
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise EncodingError(
            f"it is not UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}; allowed is UTF-8"
        ) from error


def _argument(index: int, text: str) -> Any:
    if text == "-":
        raise click.UsageError("- stands alone: values come from standard input or from the command line")
    if text[0:1] == "-" and not text[1:2].isdigit():
        raise click.NoSuchOption(text.partition("=")[0])
    return _parsed(f"value {index}", _checked_text(f"value {index}", text), _quoting(text))


def _checked_text(what: str, text: str | None) -> str:
    """Return a word of the command line; one whose bytes are no text here would be changed on its way."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        shown = one_line(text or "")
        raise EncodingError(f"{what} is not {sys.getfilesystemencoding()}: {shown}") from error
    return text or ""


def _parsed(where: str, text: str, allowed: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."
        raise EncodingError(f"{where} is not JSON: {shown} ({error}); allowed is {allowed}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; one that has a key twice would lose a part of itself."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"an object has the key {json.dumps(twice)} twice")
    return found


def _quoting(text: str) -> str:
    """Return how a value is written so that the shell leaves JSON's own quotes."""
    plain = not any(mark in text for mark in "{}[]\"':,\\")
    example = json.dumps(text if plain else {"key": "value"}, ensure_ascii=False)
    if os.name == "nt":
        return '"' + example.replace('"', '\\"') + '", with the inner quotes escaped from the shell'
    return f"'{example}', in single quotes that keep JSON's own from the shell"


def _field(option: str, field: str) -> Callable[[Any], str | int]:
    """Return a function from a value to one of its fields."""

    def get(value: Any) -> str | int:
        if not isinstance(value, dict):
            shown = json.dumps(value, ensure_ascii=False)[:SHOWN]
            raise OptionError(f"{option} is {field!r}: {shown} has no fields, allowed are objects")
        if field not in value:
            there = ", ".join(value) or "nothing"
            raise OptionError(f"{option} is {field!r}: a value has no such field, it has {there}")
        return value[field]  # type: ignore[no-any-return]

    return get
