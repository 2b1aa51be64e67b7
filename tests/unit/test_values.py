"""Values as JSON: what would be changed on its way is refused with its place."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes import EncodingError
from sqspipes.messages.values import encode_value


class Number(enum.IntEnum):
    """A member is a number, and a number's key in JSON."""

    ONE = 1


class Loud(str):  # noqa: SLOT000
    """A text that is no other text's equal, as it says."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return 7


class Row(NamedTuple):
    """A tuple with names."""

    cells: dict[Any, Any]


COLLIDING: list[dict[Any, Any]] = [
    {1: "a", "1": "b"},
    {"1": "a", 1: "b"},
    {True: 1, "true": 2},
    {False: 1, "false": 2},
    {None: 1, "null": 2},
    {1.0: 1, "1.0": 2},
    {-0.5: 1, "-0.5": 2},
    {1e100: 1, "1e+100": 2},
    {Number.ONE: 1, "1": 2},
    {Loud("a"): 1, "a": 2},
    {**{str(number): number for number in range(1000)}, 999: 999},
    {True: {}, "true": {}, **{f"{name}x": {} for name in range(3000)}},
]


@pytest.mark.parametrize("value", COLLIDING, ids=lambda value: repr(value)[:40])
def test_dict_two_of_whose_keys_are_one_in_json_is_refused(value: dict[Any, Any]) -> None:
    with pytest.raises(
        EncodingError, match=r"^value would lose a part of itself as JSON: \$ has the keys .* and "
    ):
        encode_value(value, "value")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"deep": [{"a": 1}, {1: 1, "1": 2}]}, r"\$\.deep\[1\]"),
        ([[[[({}, {1: 1, "1": 2})]]]], r"\$\[0\]\[0\]\[0\]\[0\]\[1\]"),
        ({"braces": "}{" * 50, "rows": [{"b": {1: 1, "1": 2}}]}, r"\$\.rows\[0\]\.b"),
        (OrderedDict({1: OrderedDict({1: 1, "1": 2})}), r"\$\.1"),
        (defaultdict(list, {"a": {1: 1, "1": 2}}), r"\$\.a"),
        (Row({1: 1, "1": 2}), r"\$\[0\]"),
        ([{"a": {}}] * 3000 + [{"a": {1: 1, "1": 2}}], r"\$\[3000\]\.a"),
        ([{"a": {}}] * 3000 + [{"a": {None: 1, "null": 2}}], r"\$\[3000\]\.a"),
        ({7: {8: [{1: 1, "1": 2}]}}, r"\$\.7\.8\[0\]"),
    ],
)
def test_dict_that_would_lose_a_part_is_found_at_any_depth(value: Any, place: str) -> None:
    with pytest.raises(EncodingError, match=rf"JSON: {place} has the keys .+ and '.+', which are one$"):
        encode_value(value, "value")


@pytest.mark.parametrize("deep", [lambda made: made, lambda made: [made], lambda made: {"rows": (1, made)}])
def test_what_json_default_returns_is_looked_at_too(deep: Any) -> None:
    class Money:
        """Not JSON."""

    with pytest.raises(EncodingError, match="would lose a part of itself"):
        encode_value({"price": Money()}, "value", lambda _: deep({1: 1, "1": 2}))
    assert encode_value({"price": Money()}, "value", lambda _: {1: 1}) == '{"price":{"1":1}}'


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ({1: "a"}, {"1": "a"}),
        (
            {1: "a", "2": "b", None: 0, 1.5: 1, False: 2},
            {"1": "a", "2": "b", "null": 0, "1.5": 1, "false": 2},
        ),
        ({Number.ONE: Number.ONE}, {"1": 1}),
        ((1, (2,)), [1, [2]]),
        (Row({"a": 1}), [{"a": 1}]),
        ({"a": {1: 1}, "b": {"1": 1}}, {"a": {"1": 1}, "b": {"1": 1}}),
        ("\ud800", "\ud800"),
        (2**70, 2**70),
    ],
    ids=repr,
)
def test_value_that_loses_nothing_arrives_as_the_guide_says(value: Any, arrives: Any) -> None:
    assert json.loads(encode_value(value, "value")) == arrives


KEYS = st.sampled_from([0, 1, "0", "1", True, "true", None, "null", 0.5, "0.5", "a", "{", Number.ONE])
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["{", '"', "{}{"]),
    lambda parts: st.lists(parts, max_size=3) | st.tuples(parts) | st.dictionaries(KEYS, parts, max_size=3),
    max_leaves=20,
)


def entries(value: Any) -> int:
    """Count the entries of all dicts in a value."""
    if isinstance(value, dict):
        return len(value) + sum(map(entries, value.values()))
    return sum(map(entries, value)) if isinstance(value, list | tuple) else 0


@given(VALUES)
def test_value_is_refused_exactly_if_an_entry_would_be_lost(value: Any) -> None:
    loses = entries(json.loads(json.dumps(value))) < entries(value)
    try:
        text = encode_value(value, "value")
    except EncodingError:
        assert loses
    else:
        assert not loses
        assert text == json.dumps(value, separators=(",", ":"))
