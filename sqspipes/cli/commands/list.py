"""List: what there is to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sqspipes import Task
from sqspipes.cli.shared import find
from sqspipes.cli.shared.options import shared
from sqspipes.cli.shared.targets import tell
from sqspipes.console import tables
from sqspipes.console.text import in_one_line


@click.command("list")
@shared
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each.")
def command(as_json: bool) -> None:
    """Show the pipelines there are, their tasks and queues.

    They are looked for in files named *pipelines.py below the working directory: clients by the names of their
    variables, pipelines by their own names. A file that cannot be imported is shown with its error, and the
    others are listed all the same.
    """
    findings = find.look(Path.cwd())
    described = [_described(each) for each in findings.found]
    if as_json:
        for one in described:
            click.echo(json.dumps(one))
    elif described:
        _show(described)
    tell(findings.broken)
    if not findings.found and not findings.broken:
        click.echo(
            f"No pipelines below {Path.cwd()}: write one into pipelines.py (see sqspipes --help)", err=True
        )
    if findings.broken and not findings.found:
        click.get_current_context().exit(1)


def _described(found: find.Finding) -> dict[str, Any]:
    described: dict[str, Any] = {"name": found.name, "target": found.target}
    try:
        client = find.client_of(found.target, found.object)
    except Exception as error:
        return {**described, "error": in_one_line(error)}
    return {**described, "domain": client.domain, "tasks": [_task(task) for task in client.tasks]}


def _task(task: Task) -> dict[str, Any]:
    kind = "source" if task.is_source else "task" if task.method is not None else "put only"
    return {"name": task.name, "kind": kind, "workers": task.workers, "queues": list(task.every_queue)}


def _show(described: list[dict[str, Any]]) -> None:
    table = tables.table("name", "target", "task", "workers#", "queues")
    for one in described:
        first = [one["name"], one["target"]]
        if "error" in one:
            table.add_row(*first, "", "", f"cannot be made: {one['error']}")
        for task in one.get("tasks", []) or ([] if "error" in one else [None]):
            table.add_row(*first, *(["", "", "no tasks"] if task is None else _cells(task)))
            first = ["", ""]
    tables.show(table, tables.console())


def _cells(task: dict[str, Any]) -> list[str]:
    queues = [queue for queue in task["queues"] if not queue.endswith("--dead.fifo")]
    levels = f" and {len(queues) - 1} more levels" if len(queues) > 1 else ""
    where = f"{queues[0]}{levels}" if queues else "a source: none"
    workers = "-" if task["kind"] == "put only" else str(task["workers"])
    return [task["name"], workers, where]
