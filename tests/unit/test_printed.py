"""What processes print is shown in whole lines, and sums of what they told outlive them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import fields

import pytest

from sqspipes.processes.printed import SIZE, Printed
from sqspipes.processes.tally import Tally, counts_of
from sqspipes.summary import Counts, Summary


class Screen:
    """Keeps the lines that it is given; the first so many times it fails."""

    def __init__(self, failures: int = 0) -> None:
        self.lines: list[str] = []
        self._failures = failures

    def show(self, lines: Sequence[str]) -> None:
        """Keep lines."""
        if self._failures:
            self._failures -= 1
            raise ValueError("no room on the screen")
        self.lines += lines


def shown(screen: Screen, *written: bytes) -> list[str]:
    """Return the lines that are shown when a process has written this, and ended."""
    printed = Printed(screen.show)
    reader, writer = multiprocessing.Pipe(duplex=False)
    with writer:
        printed.listen(reader, "process 1")
        for text in written:
            os.write(writer.fileno(), text)
    printed.end(10.0)
    return screen.lines


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"on", b"e\nt", b"wo\n"), ["one", "two"]),
        ((b"one\ntorn",), ["one", "torn"]),
        ((b"\n\n",), ["", ""]),
        ((b"caf\xe9 \xc3\xa9\n",), ["caf\ufffd \xe9"]),
        ((), []),
    ],
    ids=["whole", "in pieces", "torn off", "empty", "no text", "nothing"],
)
def test_lines_are_shown_whole(written: tuple[bytes, ...], lines: list[str]) -> None:
    assert shown(Screen(), *written) == lines


def test_line_that_does_not_end_is_shown_in_parts() -> None:
    lines = shown(Screen(), *[b"x" * SIZE] * 5, b"\nend\n")
    assert (len("".join(lines[:-1])), lines[-1]) == (5 * SIZE, "end")
    assert max(map(len, lines)) <= 2 * SIZE


def test_screen_that_fails_holds_up_no_process() -> None:
    assert shown(Screen(failures=1), *[b"x" * SIZE + b"\n"] * 20, b"end\n")[-1] == "end"


# Sums


def told(**tasks: tuple[int, int, int]) -> dict[str, dict[str, int]]:
    """Return counts as a process tells them."""
    return counts_of({task: Summary("", *counts) for task, counts in tasks.items()})


@pytest.fixture
def tally() -> Tally:
    """Sums of two tasks, and two processes that have told theirs."""
    made = Tally(["first", "second"])
    made.tell(1, told(first=(5, 1, 0), second=(3, 0, 1)))
    made.tell(2, told(first=(7, 0, 0)))
    return made


def sums(tally: Tally) -> dict[str, tuple[int, int, int]]:
    """Return the counts of each task."""
    return {task: (each.done, each.failed, each.dead) for task, each in tally.by_task("stopped").items()}


def test_counts_of_all_processes_are_summed(tally: Tally) -> None:
    assert tally.by_task("signal") == {
        "first": Summary("signal", 12, 1, 0),
        "second": Summary("signal", 3, 0, 1),
    }


def test_what_a_process_tells_later_is_in_place_of_what_it_told(tally: Tally) -> None:
    tally.tell(1, told(first=(6, 1, 0), second=(3, 0, 1)))
    assert sums(tally) == {"first": (13, 1, 0), "second": (3, 0, 1)}


def test_what_a_process_told_is_kept_when_another_takes_its_place(tally: Tally) -> None:
    tally.bury(1)
    assert sums(tally) == {"first": (12, 1, 0), "second": (3, 0, 1)}
    tally.tell(1, told(first=(1, 0, 0), second=(0, 0, 0)))
    tally.bury(1)
    tally.bury(1)
    assert sums(tally) == {"first": (13, 1, 0), "second": (3, 0, 1)}


def test_task_of_which_nobody_told_has_nothing() -> None:
    assert sums(Tally(["first"])) == {"first": (0, 0, 0)}


def test_each_counter_is_added_told_and_printed() -> None:
    names = [counter.name for counter in fields(Counts)]
    one = Counts(**{name: 2**place for place, name in enumerate(names)})
    both = one + Counts.of(one.summary("drained"))
    assert {name: getattr(both, name) for name in names} == {
        name: 2 ** (p + 1) for p, name in enumerate(names)
    }
    assert [each.name for each in fields(Summary)] == ["reason", *names]
    assert str(one) == "1 call done, 2 failed, 4 dead letters"
