"""Ids: functions of what they name and of nothing else, in an alphabet that every broker takes."""

from __future__ import annotations

import string
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sqspipes import message as messages
from sqspipes.errors import OptionError
from sqspipes.message import LONGEST_NAME, Message

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
ALPHABET = set(string.ascii_letters + string.digits + string.punctuation)

names = st.text(min_size=1) | st.text(string.printable, min_size=1, max_size=300)
parts = st.lists(st.text() | st.text("0123456789:") | st.integers(), max_size=5)


def is_legal(name: str) -> bool:
    return 1 <= len(name) <= 128 and set(name) <= ALPHABET


@given(names)
def test_legal_name_is_in_the_brokers_alphabet(name: str) -> None:
    assert is_legal(messages.legal(name))


@given(names)
def test_name_that_the_broker_takes_stays_as_it_is(name: str) -> None:
    assert (messages.legal(name) == name) == is_legal(name)
    assert messages.legal(messages.legal(name)) == messages.legal(name)


@given(names, names)
def test_two_names_are_never_one_to_the_broker(one: str, other: str) -> None:
    assert (messages.legal(one) == messages.legal(other)) == (one == other)


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "é", "a\n", "\ud800", "\x7f", "\t"])
def test_name_that_the_broker_refuses_goes_as_its_hash(name: str) -> None:
    assert messages.legal(name).startswith("sha256:")
    assert is_legal(messages.legal(name))


@given(parts, parts)
def test_derived_ids_are_distinct_for_distinct_parts(one: list[str | int], other: list[str | int]) -> None:
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (messages.derived(*one) == messages.derived(*other)) == same


@given(parts)
def test_derived_id_is_legal(one: list[str | int]) -> None:
    assert is_legal(messages.derived(*one))


def test_parts_do_not_run_into_one_another() -> None:
    assert messages.derived("ab", "c") != messages.derived("a", "bc")
    assert messages.derived("a", "") != messages.derived("", "a")
    assert messages.derived("1:a") != messages.derived("1", "a")


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.integers(0, 9))
def test_kinds_of_ids_never_meet(parent: str, task: str, content: str, equals: int) -> None:
    message = Message(id=parent, value=None)
    ids = [
        messages.result_id(parent, task),
        messages.output_id(parent, task, content, equals),
        messages.output_id(parent, task, content, equals + 1),
        messages.letter_id(message, task),
        messages.redrive_id(message, task),
        messages.letter_id(replace(message, redrives=1), task),
        messages.redrive_id(replace(message, redrives=1), task),
    ]
    assert len(set(ids)) == len(ids)


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text())
def test_ids_differ_by_parent_and_by_task(parent: str, other: str, task: str, content: str) -> None:
    assume(parent != other)
    assert messages.result_id(parent, task) != messages.result_id(other, task)
    assert messages.result_id(task, parent) != messages.result_id(task, other)
    assert messages.output_id(parent, task, content, 0) != messages.output_id(other, task, content, 0)


def test_ids_stay_what_they_are_over_versions() -> None:
    # A second run of another version must repeat the ids of the first: a change here doubles what is on its way.
    assert messages.derived() == "cae66941d9efbd404e4d88758ea67670"
    assert messages.result_id("parent", "task") == "25e90403206b3f21f7a7d8885175007f"
    assert messages.output_id("parent", "task", "content", 0) == "cd8e3b9ae95204cb6ff1ca65622d1194"


@given(st.integers())
def test_int_is_its_digits(number: int) -> None:
    assert messages.checked_name("group", number) == str(number)


@pytest.mark.parametrize("name", ["", "a" * (LONGEST_NAME + 1), None, True, 1.5, b"x", ["x"]])
def test_what_is_no_name_is_refused_by_its_option(name: object) -> None:
    with pytest.raises(OptionError, match="group is "):
        messages.checked_name("group", name)


def test_message_without_a_group_is_a_lane_of_its_own() -> None:
    assert Message(id="x", value=None).lane == "x"
    assert Message(id="x", value=None, group="g").lane == "g"
    assert Message(id="x y", value=None).lane == messages.legal("x y")
