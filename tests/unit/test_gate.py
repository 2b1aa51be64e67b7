"""Gate: a suspect runs alone, and whoever was refused is asked again in time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqspipes.calls.held import Held
from sqspipes.engine.gate import MOST_KEPT_PART, MOST_KEPT_SECONDS, Gate
from tests.builders import held_of

INNOCENT, SUSPECT = 3, 4


def message(receives: int = INNOCENT) -> Held:
    return held_of(receives=receives)


def gate_with_calls() -> tuple[Gate, list[None]]:
    opened: list[None] = []
    return Gate(lambda: opened.append(None), lambda: 0.0), opened


class Timed:
    """A gate whose clock a test moves; ``opened`` counts, and ``due`` is when it wants to look again."""

    def __init__(self) -> None:
        self.now, self.opened, self.due = 0.0, 0, 0.0
        self.gate = Gate(self._open, lambda: self.now, self._tick)

    def _open(self) -> None:
        self.opened += 1

    def _tick(self, due: float) -> None:
        self.due = due

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.gate.look()


def test_innocent_calls_run_side_by_side() -> None:
    gate, opened = gate_with_calls()
    first, second = message(), message()
    assert gate.enter(first)
    assert gate.enter(second)
    gate.leave(first)
    gate.leave(second)
    assert not opened


def test_suspect_waits_for_all_others() -> None:
    gate, opened = gate_with_calls()
    first, second, suspect = message(), message(), message(SUSPECT)
    gate.enter(first)
    gate.enter(second)
    assert not gate.enter(suspect)
    gate.leave(first)
    assert not opened
    gate.leave(second)
    assert opened
    assert gate.enter(suspect)


def test_nobody_enters_beside_a_suspect() -> None:
    gate, opened = gate_with_calls()
    suspect, innocent, other = message(SUSPECT), message(), message(SUSPECT)
    assert gate.enter(suspect)
    assert not gate.enter(innocent)
    assert not gate.enter(other)
    gate.leave(suspect)
    assert opened


def test_suspect_that_waits_is_not_overtaken() -> None:
    gate, _ = gate_with_calls()
    running, suspect = message(), message(SUSPECT)
    gate.enter(running)
    assert not gate.enter(suspect)
    assert not gate.enter(message())
    gate.leave(running)
    assert not gate.enter(message())
    assert gate.enter(suspect)


def test_suspect_that_is_not_held_any_more_lets_the_others_in() -> None:
    gate, opened = gate_with_calls()
    running, suspect, innocent = message(), message(SUSPECT), message()
    gate.enter(running)
    assert not gate.enter(suspect)
    assert not gate.enter(innocent)
    gate.forget(suspect)
    assert opened
    assert gate.enter(innocent)


def test_message_that_was_never_refused_is_forgotten_in_silence() -> None:
    gate, opened = gate_with_calls()
    gate.forget(message(SUSPECT))
    assert not opened


# It holds nobody up


def test_suspect_that_waited_for_long_runs_beside_the_call_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    timed = Timed()
    running, suspect, innocent = message(), message(SUSPECT), message()
    assert timed.gate.enter(running)
    assert not timed.gate.enter(suspect)
    assert timed.due == MOST_KEPT_SECONDS
    timed.pass_by(MOST_KEPT_SECONDS - 0.1)
    assert not timed.gate.enter(suspect)
    assert not timed.gate.enter(innocent)
    assert (timed.opened, caplog.messages) == (0, [])
    timed.pass_by(0.1)
    assert timed.opened == 1
    assert not timed.gate.shut
    assert timed.gate.enter(suspect)
    assert timed.gate.enter(innocent)
    assert len(caplog.messages) == 1
    assert suspect.message.id in caplog.text and running.message.id in caplog.text


def test_suspect_that_runs_for_long_is_not_alone_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    timed = Timed()
    suspect, innocent = message(SUSPECT), message()
    assert timed.gate.enter(suspect)
    assert not timed.gate.enter(innocent)
    timed.pass_by(MOST_KEPT_SECONDS)
    assert timed.opened == 1
    assert timed.gate.enter(innocent)
    assert len(caplog.messages) == 1 and suspect.message.id in caplog.text
    timed.gate.leave(suspect)
    assert timed.gate.enter(message())


def test_call_that_finds_the_time_is_up_lets_the_others_in_too() -> None:
    timed = Timed()
    timed.gate.enter(message())
    assert not timed.gate.enter(message(SUSPECT))
    timed.now += MOST_KEPT_SECONDS
    assert timed.gate.enter(message())
    assert timed.opened == 1


def test_suspects_in_a_row_keep_others_back_for_a_tenth_of_the_time() -> None:
    timed = Timed()
    timed.gate.enter(message())  # and never leaves
    kept = ran = 0.0
    suspect: Held | None = None
    for _ in range(10_000):
        if suspect is None:
            suspect = message(SUSPECT)
        if timed.gate.enter(suspect):
            timed.gate.leave(suspect)
            ran, suspect = ran + 1, None
        seconds = timed.due - timed.now if timed.gate.shut else 0.1
        kept += seconds * timed.gate.shut
        timed.pass_by(seconds)
    assert MOST_KEPT_SECONDS <= kept <= MOST_KEPT_SECONDS + MOST_KEPT_PART * timed.now
    assert ran > 1_000  # one after the other, though the first call never ends


def test_short_suspects_are_alone_one_after_the_other() -> None:
    timed = Timed()
    for _ in range(1_000):
        suspect = message(SUSPECT)
        assert timed.gate.enter(suspect)
        assert not timed.gate.enter(message())
        timed.pass_by(0.004)
        timed.gate.leave(suspect)


def test_message_that_is_called_again_before_its_call_was_left_is_inside_once() -> None:
    gate, _ = gate_with_calls()
    held = message()
    assert gate.enter(held) and gate.enter(held)
    gate.leave(held)
    assert not gate.enter(message(SUSPECT))


@settings(max_examples=200)
@given(st.data(), st.lists(st.booleans(), min_size=1, max_size=20))
def test_everybody_gets_in_and_a_suspect_is_always_alone(data: st.DataObject, suspects: list[bool]) -> None:
    to_come = [message(SUSPECT if suspect else INNOCENT) for suspect in suspects]
    inside: list[Held] = []
    refused: list[Held] = []
    been: list[Held] = []

    def ask(held: Held) -> None:
        if gate.enter(held):
            inside.append(held)
            assert len(inside) == 1 or not any(one.suspect for one in inside)
        else:
            refused.append(held)

    def opened() -> None:
        again = list(refused)
        refused.clear()
        permutations: st.SearchStrategy[list[Held]] = st.permutations(again)
        order = data.draw(permutations)
        for held in order:
            ask(held)

    gate = Gate(opened, lambda: 0.0)
    while to_come or inside:
        if bool(to_come) and (not inside or data.draw(st.booleans())):
            ask(to_come.pop())
        elif inside:
            held = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            been.append(held)
            gate.leave(held)
        elif bool(refused) and data.draw(st.booleans()):
            gate.forget(refused.pop())
    assert not refused
    assert len(been) == len(suspects)
