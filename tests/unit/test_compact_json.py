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


def circle_of(kind: str) -> Any:
    """Return a value that holds itself, with much before the place."""
    rows = [{"row": number} for number in range(2_000)]
    if kind == "dict":
        document: dict[str, Any] = {"rows": rows}
        document["itself"] = document
        return document
    circle: list[Any] = [*rows, 1]
    circle.append((circle,))
    return circle


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_value_that_holds_itself_is_told_at_once(kind: str) -> None:
    calls = 0

    class Counted(int):
        def __repr__(self) -> str:
            nonlocal calls
            calls += 1
            return "1"

    value = circle_of(kind)
    (value["rows"] if kind == "dict" else value).insert(0, Counted())
    with pytest.raises(ValueError, match="Circular reference"):
        compact_json.encode(value)
    assert calls <= 1


def test_without_the_encoder_in_c_the_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_json, "_fast", None)
    assert compact_json.encode({"a": "ä", "b": 1.5}) == usual({"a": "ä", "b": 1.5})


@given(VALUES)
def test_known_values_are_written_as_json_does(value: Any) -> None:
    assert compact_json.encode_known(value) == usual(value)
