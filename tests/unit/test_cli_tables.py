"""Figures and bars are shown as people read them, whatever the numbers are."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, Group

from sqspipes.cli.commands.status import in_words
from sqspipes.console.live import LONGEST_HISTORY, History
from sqspipes.console.tables import NO_TERMINAL, figure, fitted, plain, sparkline, table
from sqspipes.console.text import count_of, in_one_line
from sqspipes.errors import OptionError
from sqspipes.support.lines import printable

RATES = st.lists(st.floats(0, 1e9, allow_subnormal=False), max_size=80)


def test_bars_rise_with_the_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 9) == " ▁▂▃▄▅▆▇█"
    assert sparkline([0, 0.01, 100], 3) == " ▁█"


def test_bars_have_plain_characters_for_plain_terminals() -> None:
    assert sparkline([0, 4, 8], 3, plain=True) == " =#"


@given(RATES, st.integers(0, 60))
def test_bars_are_as_wide_as_they_are_asked_to_be(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == width


@given(RATES)
def test_only_nothing_has_no_bar(values: list[float]) -> None:
    shown = sparkline(values, 80)[80 - len(values) :]
    assert [bar == " " for bar in shown] == [value == 0 for value in values]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (0.25, "0.2"), (3, "3"), (9.96, "10.0"), (12.6, "13"), (1_234_567, "1,234,567")],
)
def test_figures_have_as_many_places_as_matter(number: float, shown: str) -> None:
    assert figure(number) == shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")]
)
def test_seconds_become_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_history_keeps_what_a_view_can_show() -> None:
    history = History()
    for done in range(2, 402, 2):
        history.add(done, 0.5)
    assert history.rates == [4.0] * LONGEST_HISTORY


def test_error_is_one_line_with_its_kind_unless_it_says_all() -> None:
    assert in_one_line(OptionError("a\n b")) == "a b"
    assert in_one_line(KeyError("a")) == "KeyError: 'a'"
    assert in_one_line(ValueError()) == "ValueError"


def test_counts_agree_with_their_nouns() -> None:
    assert [count_of(number, "value") for number in (0, 1, 1_000)] == ["0 values", "1 value", "1,000 values"]


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.booleans())
def test_tables_are_the_same_where_there_is_no_terminal(rows: list[tuple[str, ...]], cut: bool) -> None:
    made = table("task", "waiting#", "error")
    for row in rows:
        made.add_row(*row[: 2 if cut else 3])
    whole = Group(made, "The broker estimates its counts.")
    console = Console(
        width=NO_TERMINAL, color_system=None, file=io.StringIO(), highlight=False, markup=False, emoji=False
    )
    with console.capture() as captured:
        console.print(whole)
    text = plain(whole)
    assert text is not None
    assert [line.rstrip() for line in text] == [line.rstrip() for line in captured.get().split("\n")[:-1]]


def test_table_that_is_too_wide_is_left_to_rich() -> None:
    made = table("task", "error")
    made.add_row("work", "x" * NO_TERMINAL)
    assert plain(made) is None


def shown(width: int) -> list[str]:
    """Return the lines of a table on a terminal that is so wide."""
    made = table("task", "priority#", "waiting#", "in flight#", "dead#", "error")
    made.add_row("normalise", "0", "1,234", "10", "3", "ValueError: all of it is wrong")
    made.add_row("", "1", "4", "0")
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO())
    console.print(fitted(made, width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("width", "head"),
    [
        (8, ["task"]),
        (20, ["task", "waiting"]),
        (30, ["task", "waiting", "dead"]),
        (42, ["task", "waiting", "dead", "error"]),
        (50, ["task", "waiting", "in", "flight", "dead", "error"]),
        (120, ["task", "priority", "waiting", "in", "flight", "dead", "error"]),
    ],
)
def test_narrow_terminal_keeps_the_task_and_whole_numbers(width: int, head: list[str]) -> None:
    first, row, *_ = shown(width)
    assert first.split() == head
    first_cell = row.split()[0]
    assert first_cell == "normalise" if width > 10 else first_cell.startswith("norma")
    assert ("1,234" in row, max(map(len, shown(width))) <= width) == (width >= 20, True)


def test_cells_command_no_terminal() -> None:
    made = table("id")
    made.add_row("a\x1b[2J\nb")
    assert list(made.columns[0].cells) == ["a\\x1b[2J\\nb"]


def test_text_cannot_command_a_terminal() -> None:
    assert printable("a\x1b[2J\r\n\tü\u202e", lines=True) == "a\\x1b[2J\\r\n\tü\\u202e"
    assert printable("a\r\n\tü\x9b\x7f") == "a\\r\\n\\tü\\x9b\\x7f"
