"""The outline of a file has what its text names, in each way in which clients, pipelines and tasks are written."""

from __future__ import annotations

import pytest

from sqspipes.cli.shared.outline import outlines


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("c = TaskClient('d')", [("c", ())]),
        ("c: TaskClient = sqspipes.TaskClient('d').register_tasks([f, a.g])", [("c", ("f", "g"))]),
        ("c = TaskClient('d')\nc.register_tasks((f, 'app.tasks:g'))", [("c", ("f", "g"))]),
        ("c = d = TaskClient('d')", [("c", ()), ("d", ())]),
        (
            "c = TaskClient('d').register_tasks([{'method': f}, {'name': 'n', 'method': g}, {**more}])",
            [("c", ("f", "n"))],
        ),
        ("c = TaskClient('d').register_tasks(all_of_them())", [("c", ())]),
        ("class P(Pipeline):\n    steps = [f, g]", [("P", ("f", "g"))]),
        ("class P(sqspipes.Pipeline):\n    name: str = 'p'\n    steps = (f,)", [("p", ("f",))]),
        ("class P(Pipeline): pass\nclass Q(P):\n    name = 'q'", [("P", ()), ("q", ())]),
        ("c = make()\nx, y = 1, 2\nf(TaskClient('d'))\nother.register_tasks([f])\nclass A: pass", []),
        ("def make():\n    c = TaskClient('d')", []),
    ],
)
def test_outline_has(text: str, found: list[tuple[str, tuple[str, ...]]]) -> None:
    assert [(each.name, each.tasks) for each in outlines(text)] == found
