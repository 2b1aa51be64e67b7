"""Gate: a suspect runs alone, and whoever was refused is asked again in time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sqspipes.runner.gate import Gate
from sqspipes.runner.held import Held
from tests.builders import held_of

INNOCENT, SUSPECT = 3, 4


def message(receives: int = INNOCENT) -> Held:
    return held_of(receives=receives)


def gate_with_calls() -> tuple[Gate, list[None]]:
    opened: list[None] = []
    return Gate(lambda: opened.append(None)), opened


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

    gate = Gate(opened)
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
