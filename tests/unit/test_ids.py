"""Ids: functions of what they name and of nothing else, in an alphabet that every broker takes."""

from __future__ import annotations

import enum
import json
import string
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sqspipes.defaults import LONGEST_NAME
from sqspipes.errors import OptionError
from sqspipes.messages.ids import (
    checked_name,
    content_of,
    derived,
    legal,
    letter_id,
    output_id,
    redrive_id,
    result_id,
)
from sqspipes.messages.message import Message
from sqspipes.messages.values import encode_value

#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
ALPHABET = set(string.ascii_letters + string.digits + string.punctuation)

names = st.text(min_size=1) | st.text(string.printable, min_size=1, max_size=300)
parts = st.lists(st.text() | st.text("0123456789:") | st.integers(), max_size=5)


def is_legal(name: str) -> bool:
    return 1 <= len(name) <= 128 and set(name) <= ALPHABET


@given(names)
def test_legal_name_is_in_the_brokers_alphabet(name: str) -> None:
    assert is_legal(legal(name))


@given(names)
def test_name_that_the_broker_takes_stays_as_it_is(name: str) -> None:
    assert (legal(name) == name) == is_legal(name)
    assert legal(legal(name)) == legal(name)


@given(names, names)
def test_two_names_are_never_one_to_the_broker(one: str, other: str) -> None:
    assert (legal(one) == legal(other)) == (one == other)


@pytest.mark.parametrize("name", ["", "a" * 129, "a b", "é", "a\n", "\ud800", "\x7f", "\t"])
def test_name_that_the_broker_refuses_goes_as_its_hash(name: str) -> None:
    assert legal(name).startswith("sha256:")
    assert is_legal(legal(name))


@given(parts, parts)
def test_derived_ids_are_distinct_for_distinct_parts(one: list[str | int], other: list[str | int]) -> None:
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (derived(*one) == derived(*other)) == same


@given(parts)
def test_derived_id_is_legal(one: list[str | int]) -> None:
    assert is_legal(derived(*one))


def test_parts_do_not_run_into_one_another() -> None:
    assert derived("ab", "c") != derived("a", "bc")
    assert derived("a", "") != derived("", "a")
    assert derived("1:a") != derived("1", "a")


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.integers(0, 9))
def test_kinds_of_ids_never_meet(stored: str, task: str, content: str, equals: int) -> None:
    ids = [
        result_id(stored, task),
        output_id("output", stored, task, content, equals),
        output_id("output", stored, task, content, equals + 1),
        output_id("rollback", stored, task, content, equals),
        letter_id(stored, task),
        redrive_id(stored),
    ]
    assert len(set(ids)) == len(ids)


@given(st.text(min_size=1), st.text(min_size=1), st.text(), st.text())
def test_ids_differ_by_parent_and_by_task(parent: str, other: str, task: str, content: str) -> None:
    assume(parent != other)
    assert result_id(parent, task) != result_id(other, task)
    assert result_id(task, parent) != result_id(task, other)
    one, two = (output_id("output", each, task, content, 0) for each in (parent, other))
    assert one != two
    assert letter_id(parent, task) != letter_id(other, task)
    assert letter_id(task, parent) != letter_id(task, other)
    assert redrive_id(parent) != redrive_id(other)


def test_ids_stay_what_they_are_over_versions() -> None:
    # A second run of another version must repeat the ids of the first: a change here doubles what is on its way.
    assert derived() == "cae66941d9efbd404e4d88758ea67670"
    assert result_id("parent", "task") == "25e90403206b3f21f7a7d8885175007f"
    assert output_id("output", "parent", "task", "content", 0) == "cd8e3b9ae95204cb6ff1ca65622d1194"
    assert letter_id("stored", "task") == "497c23015bb1f816c525244870be4410"
    assert redrive_id("stored") == "93d9ff2acb4ddfb5861dfc251adbf97d"


objects = st.dictionaries(
    st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(st.lists(objects | st.integers(), max_size=3), st.randoms())
def test_content_is_equal_when_only_the_order_of_keys_differs(value: list[Any], random: Random) -> None:
    def shuffled(part: Any) -> Any:
        return dict(random.sample(list(part.items()), len(part))) if isinstance(part, dict) else part

    other = [shuffled(part) for part in value]
    one, two = (content_of("t", None, 0, encode_value(each, "it")) for each in (value, other))
    assert one == two


@given(
    st.lists(objects | st.integers() | st.text(), max_size=3), st.lists(objects | st.integers(), max_size=3)
)
def test_contents_are_different_when_their_json_is(one: list[Any], other: list[Any]) -> None:
    texts = [json.dumps(value, sort_keys=True) for value in (one, other)]
    contents = [content_of("t", None, 0, encode_value(value, "it")) for value in (one, other)]
    assert (contents[0] == contents[1]) == (texts[0] == texts[1])


class Number(enum.IntEnum):
    ONE = 1


class Mixed(int, enum.Enum):
    TWO = 2


class Color(str, enum.Enum):  # noqa: UP042 - as many are
    RED = "red"

    def __str__(self) -> str:
        return "a color"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Plain(enum.Enum):
    RED = "red"


@given(st.integers())
def test_int_is_its_digits(number: int) -> None:
    assert checked_name("group", number) == str(number)


@pytest.mark.parametrize(
    ("name", "text"),
    [(Color.RED, "red"), (Loud("quiet"), "quiet"), (Number.ONE, "1"), (Mixed.TWO, "2")],
    ids=str,
)
def test_name_that_is_more_than_a_text_or_an_int_is_its_value(name: object, text: str) -> None:
    checked = checked_name("group", name)
    assert (type(checked), checked) == (str, text)


@pytest.mark.parametrize("name", [None, True, 1.5, b"x", ["x"], Plain.RED], ids=repr)
def test_what_is_no_name_is_refused_by_its_option_and_named(name: object) -> None:
    with pytest.raises(OptionError) as refused:
        checked_name("group", name)
    assert str(refused.value).startswith(f"group is {name!r}: ")


@pytest.mark.parametrize("name", ["", Loud("")])
def test_empty_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="group is an empty text: "):
        checked_name("group", name)


@pytest.mark.parametrize("number", [10**1_000, -(10**1_000), 10**5_000], ids=["long", "negative", "longer"])
def test_int_that_is_too_long_is_refused(number: int) -> None:
    with pytest.raises(OptionError, match="group is an int of more than 1,000 digits"):
        checked_name("group", number)


def test_name_that_is_too_long_is_refused_by_its_length() -> None:
    with pytest.raises(OptionError, match=r"group is a text of 1001 characters"):
        checked_name("group", "a" * (LONGEST_NAME + 1))


def test_message_without_a_group_is_a_lane_of_its_own() -> None:
    assert Message(id="x", value=None).lane == "x"
    assert Message(id="x", value=None, group="g").lane == "g"
    assert Message(id="x y", value=None).lane == legal("x y")


def test_same_id_without_a_group_and_in_the_group_of_that_name_are_two_messages() -> None:
    alone, grouped, other = Message("x", 1), Message("x", 1, "x"), Message("x", 1, "g")
    assert alone.lane == grouped.lane
    assert (alone.key, other.key) == ("x", "x")
    assert grouped.key != "x"
    assert grouped.key == Message("x", 2, "x").key
