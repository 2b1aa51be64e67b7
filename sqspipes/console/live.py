"""Live: a view of a run that goes on, a line for each task."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.ansi import AnsiDecoder
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sqspipes import SqspipesError, Status, Summary, TaskClient, one_line
from sqspipes.console import tables
from sqspipes.console.text import in_one_line

#: Seconds between two looks at the run's own counts, which cost nothing.
LOOK_SECONDS = 1.0

#: Seconds between two looks at the queues where each look at one is a request that is paid for.
PAID_SECONDS = 10.0

#: Looks that a sparkline can show.
LONGEST_HISTORY = 60

#: Columns of the view without its sparkline.
FIGURES_WIDTH = 62


class Counted(Protocol):
    """What is shown: a run, in one process or in several."""

    @property
    def by_task(self) -> Mapping[str, Summary]: ...

    @property
    def outage(self) -> str | None: ...


@dataclass(slots=True)
class History:
    """What one task has done, look for look."""

    done: int = 0
    rates: list[float] = field(default_factory=list)

    def add(self, done: int, seconds: float) -> None:
        """Take note of the calls done so far, ``seconds`` after the last look."""
        self.rates = [*self.rates, (done - self.done) / seconds][-LONGEST_HISTORY:]
        self.done = done


class View:
    """What is shown of a run; ``keep`` looks, in a thread of its own, and ``render`` shows what it saw."""

    def __init__(self, client: TaskClient, run: Counted, width: int) -> None:
        self._client = client
        self._run = run
        self._histories = {task: History() for task in run.by_task}
        self._status: Status | None = None
        self._trouble: str | None = None
        self._status_due = 0.0
        self._looked = time.monotonic()
        self._plain = tables.is_plain()
        self._width = width
        self._spark_width = max(0, min(LONGEST_HISTORY, width - FIGURES_WIDTH))

    def keep(self, ended: threading.Event) -> None:
        """Look again and again, until told that the run has ended."""
        self._look_at_queues()
        while not ended.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Take note of what the run has done since the last look, and of the queues."""
        now = time.monotonic()
        seconds, self._looked = max(now - self._looked, 0.001), now
        for task, summary in self._run.by_task.items():
            self._histories[task].add(summary.done, seconds)
        if now >= self._status_due:
            self._look_at_queues()

    def _look_at_queues(self) -> None:
        try:
            self._status, self._trouble = self._client.status(), None
        except SqspipesError as error:
            self._trouble = in_one_line(error)
        paid = self._status is None or any(level.approximate for level in self._status.levels)
        self._status_due = time.monotonic() + (PAID_SECONDS if paid else 0.0)

    def render(self) -> RenderableType:
        """Return the table of what was seen, with the run's own counts as they are now."""
        columns = (
            "task",
            "waiting#",
            "in flight#",
            "done#",
            "done/s#",
            "failed#",
            "dead#",
            "done/s, lately#",
        )
        table = tables.table(*columns[: 8 if self._spark_width else 7])
        for task, summary in self._run.by_task.items():
            rates = self._histories[task].rates
            spark = (
                [tables.sparkline(rates, self._spark_width, plain=self._plain)] if self._spark_width else []
            )
            table.add_row(task, *self._cells(task, summary, rates), *spark)
        trouble = one_line(self._run.outage or self._trouble or "")
        shown = tables.fitted(table, self._width)
        return Group(shown, Text(f"Trouble with the broker: {trouble}", "red")) if trouble else shown

    def _cells(self, task: str, summary: Summary, rates: list[float]) -> list[Text]:
        levels = [level for level in self._status.levels if level.task == task] if self._status else []
        waiting = tables.figure(sum(level.waiting for level in levels)) if levels else "?"
        in_flight = tables.figure(sum(level.in_flight for level in levels)) if levels else "?"
        dead = max([summary.dead, *(level.dead for level in levels)])
        return [
            Text(waiting),
            Text(in_flight),
            Text(tables.figure(summary.done)),
            Text(tables.figure(rates[-1] if rates else 0.0)),
            Text(tables.figure(summary.failed), "yellow" if summary.failed else ""),
            Text(tables.figure(dead), "red" if dead else ""),
        ]


def show_above(console: Console, lines: Sequence[str]) -> None:
    """Print lines that other processes have written, above the view, as they would look on the terminal itself."""
    decoder = AnsiDecoder()
    console.print(Text("\n").join(map(decoder.decode_line, lines)), soft_wrap=True)


@contextmanager
def shown(client: TaskClient, run: Counted, console: Console) -> Iterator[None]:
    """Show a run while the block waits for it; what is printed meanwhile stands above."""
    view, ended = View(client, run, console.width), threading.Event()
    looking = threading.Thread(target=view.keep, args=(ended,), name="sqspipes view", daemon=True)
    with Live(get_renderable=view.render, console=console, refresh_per_second=2):
        looking.start()
        try:
            yield
        finally:
            ended.set()
            looking.join(LOOK_SECONDS)
            if not looking.is_alive():
                view.look()
