"""Cli: the command ``sqspipes``, above the public API; each command is one file."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Sequence

import click

from sqspipes import _starting, printable
from sqspipes.cli.root import INTERRUPTED, root
from sqspipes.cli.shared import options, signals, streams
from sqspipes.console.text import in_one_line

#: The exit code of an error. Click's is 2 for an error of usage.
FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code.

    0: done. 1: an error, in one line on standard error. 2: the command was not understood. 3: a run was drained, and
    something became a dead letter. 4: not all dead letters were listed, sent or deleted. 130: Ctrl-C.
    """
    try:
        _starting.over()
        streams.open_all()
        if threading.current_thread() is threading.main_thread():
            signals.listen()
        code = root.main(arguments, prog_name="sqspipes", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):  # Ctrl-C, wherever it came
        return INTERRUPTED
    except click.ClickException as error:
        vars(error).update(message=printable(error.message, lines=True))
        error.show()
        return error.exit_code
    except Exception as error:
        if options.is_debugging(arguments):
            said = "".join(traceback.format_exception(error))
            click.echo(printable(said, lines=True), err=True, nl=False)
        else:
            click.echo(f"Error: {in_one_line(error)}", err=True)
        return FAILED
    return code if isinstance(code, int) else 0
