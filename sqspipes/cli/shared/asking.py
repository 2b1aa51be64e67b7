"""Asking: questions that a command asks on the terminal."""

from __future__ import annotations

import sys

import click


def confirm(question: str, yes: bool, option: str = "--yes") -> None:
    """Ask on the terminal; end the command unless the answer is yes, or was given by an option."""
    if not yes and _answer(f"{question} [y/N] ", option).lower() not in ("y", "yes"):
        raise click.ClickException("nothing was done: the answer was not yes")


def confirm_name(question: str, name: str, given: str | None, option: str) -> None:
    """Have a name typed; end the command if it is another."""
    typed = _answer(f"{question} ", f"{option} {name}") if given is None else given
    if typed != name:
        raise click.ClickException(f"nothing was done: the domain is {name!r}, not {typed!r}")


def _answer(question: str, option: str) -> str:
    """Return a line from the terminal; where there is none, name the option that answers."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"standard input is no terminal, nobody can be asked: give {option}")
    click.echo(question, nl=False, err=True)
    line = sys.stdin.readline()
    if not line:  # the end of the input, by Ctrl-D
        click.echo(err=True)
    return line.strip()
