"""Compact JSON: what ``json.dumps`` writes, and the errors that it raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.support import compact_json

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = st.text() | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


def usual(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


@given(VALUES)
def test_values_are_written_as_json_does(value: Any) -> None:
    assert compact_json.encode(value) == usual(value)


def test_encoder_in_c_is_there() -> None:
    assert compact_json._fast is not None


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, [object()], {(1, 2): 3}, {"a": {1}}])
def test_what_is_no_json_has_the_usual_error(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as expected:
        usual(value)
    with pytest.raises(type(expected.value)) as found:
        compact_json.encode(value)
    assert str(found.value) == str(expected.value)


def test_circle_is_told_as_one() -> None:
    circle: list[Any] = []
    circle.append({"inside": circle})
    with pytest.raises(ValueError, match="Circular reference"):
        compact_json.encode(circle)
    assert compact_json.encode([1]) == "[1]"


def test_without_the_encoder_in_c_the_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_json, "_fast", None)
    assert compact_json.encode({"a": ["ä", 1.5, None]}) == usual({"a": ["ä", 1.5, None]})
