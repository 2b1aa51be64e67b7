"""Values: what a message carries, as JSON text; what no message can carry is told with its place."""

from __future__ import annotations

import inspect
import json
from collections import Counter, deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from sqspipes.errors import EncodingError
from sqspipes.support import compact_json
from sqspipes.support.compact_json import PLAIN
from sqspipes.support.forked import called

#: Types whose values hold others, and nothing to be run by themselves.
CONTAINERS = frozenset({dict, list, tuple})

#: Parts of a value that nobody reads which are looked at: it may have no end.
MOST_PARTS = 100_000

#: Dicts or lists side by side in a value from which on its JSON is looked at.
MANY_DICTS = 2_000

_TEXT, _DICT = frozenset({str}), frozenset({dict})
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_ENDS_OF_KEYS = (b'0":', b'"true":', b'"false":', b'"null":')


def encode_value(value: Any, what: str, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON text; ``what`` names it in the error.

    A dict two of whose keys are one key in JSON would lose a part of itself: it is refused.
    """
    try:
        if default is None:
            text = compact_json.encode(value)
        else:
            text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_checking(default))
    except (TypeError, ValueError, RecursionError) as error:
        raise EncodingError(f"{what} is not JSON: {_first_bad_part(value, default) or error}") from error
    if type(value) not in PLAIN and _has_other_keys(value, text):
        twice = _key_that_is_there_twice(value)
        if twice is not None:
            raise EncodingError(f"{what} would lose a part of itself as JSON: {twice}")
    return text


# Keys that collide


def _has_other_keys(value: Any, text: str) -> bool:
    """Say whether a dict in a value, whose JSON is ``text``, may have keys that are no plain text.

    Only then can two be the same in JSON. Few programs have such keys and all pay for the look. So it asks one level
    of the value at a time, and stops when it has seen as many dicts as the text has braces. Of very many small dicts
    it asks the text.
    """
    dicts = text.count("{")
    level, asked = [value], False
    while dicts > 0 and level:
        if len(level) > MANY_DICTS and not asked:
            asked = True
            if not _may_have_other_keys(text):
                return False
        if _DICT.issuperset(map(type, level)):
            found, lists = level, []
        else:
            found = [part for part in level if isinstance(part, dict)]
            lists = [part for part in level if isinstance(part, list | tuple)]
        if not _TEXT.issuperset(map(type, chain.from_iterable(found))):
            return True
        dicts -= len(found)
        if dicts > 0:
            parts = chain(chain.from_iterable(map(dict.values, found)), chain.from_iterable(lists))
            level = [part for part in parts if type(part) not in PLAIN]
    return False


def _may_have_other_keys(text: str) -> bool:
    """Say whether a text has anything that looks like the key of a number, of True, False or None."""
    alike = text.encode().translate(_DIGITS_ALIKE)
    return any(map(alike.__contains__, _ENDS_OF_KEYS))


def _key_that_is_there_twice(value: Any) -> str | None:
    """Name the first dict in a value, and its keys, that are one key in JSON."""
    for path, part in parts_of(value):
        if isinstance(part, dict):
            texts = [_as_key(key) for key in part]
            most = Counter(texts).most_common(1)
            if most and most[0][1] > 1:
                both = " and ".join(
                    repr(key) for key, text in zip(part, texts, strict=True) if text == most[0][0]
                )
                return f"{path} has the keys {both}, which are one"
    return None


def _as_key(key: Any) -> str:
    """Return a key as JSON has it."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return float.__repr__(key) if isinstance(key, float) else int.__repr__(key)


def _checking(default: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a ``default`` whose results are checked, and that describes nothing which is still to run."""

    def checked(part: Any) -> Any:
        made = None if is_async(part) else called(default, part)
        if is_lazy(part) and not isinstance(made, list | tuple | dict):
            raise TypeError(f"it holds {typename(part)}, which nobody would run")
        if type(made) not in PLAIN and (twice := _key_that_is_there_twice(made)):
            raise ValueError(f"what json_default returned would lose a part of itself: {twice}")
        return made

    return checked


# What is still to run


def is_async(value: Any) -> bool:
    """Say whether a value is to be awaited, or iterated over with ``async for``."""
    return inspect.isawaitable(value) or isinstance(value, AsyncIterable)


def is_lazy(value: Any) -> bool:
    """Say whether a value does its work only when somebody asks for it: an iterator, or something async."""
    return isinstance(value, Iterator) or is_async(value)


def check_nothing_lazy(value: Any, what: str) -> None:
    """Raise ``EncodingError`` for a value that holds something which nobody would run."""
    level, seen = [value], 0
    while level and seen < MOST_PARTS:
        dicts = [part for part in level if isinstance(part, dict)]
        lists = [part for part in level if isinstance(part, list | tuple | set | frozenset | deque)]
        if len(dicts) + len(lists) < len(level):
            for part in level:
                if type(part) not in PLAIN and is_lazy(part):
                    raise EncodingError(f"{what} is {_with_place(value, part)}")
        parts = chain(chain.from_iterable(map(dict.values, dicts)), chain.from_iterable(lists))
        level = [part for part in parts if type(part) not in PLAIN]
        seen += len(level) + 1


def _with_place(value: Any, lazy: Any) -> str:
    path = next((path for path, part in parts_of(value) if part is lazy), "$")
    place = "" if path == "$" else f", at {path}"
    return (
        f"{typename(lazy)}{place}, which nobody would run: allowed is a list, or None where nothing goes on"
    )


def let_go(value: Any) -> None:
    """Close the coroutines in a value that will not be awaited, so that Python warns of none."""
    if type(value) not in PLAIN:
        for _, part in parts_of(value):
            if inspect.iscoroutine(part) and inspect.getcoroutinestate(part) == inspect.CORO_CREATED:
                part.close()


# The parts of a value


def parts_of(value: Any) -> Iterable[tuple[str, Any]]:
    """Yield a value and all that is in it, in order, each with its path: ``$.rows[3].created``.

    A path that holds itself, or has no end, ends with a part that is the class ``TooDeep``.
    """
    stack: list[tuple[str, Any]] = [("$", value)]
    seen = 0
    while stack:
        path, part = stack.pop()
        seen += 1
        if seen > 1_000_000 or path.count(".") + path.count("[") > 900:
            yield path, TooDeep
            return
        yield path, part
        if isinstance(part, dict):
            stack.extend((f"{path}.{key}", part[key]) for key in reversed(part))
        elif isinstance(part, list | tuple):
            stack.extend((f"{path}[{i}]", part[i]) for i in range(len(part) - 1, -1, -1))


class TooDeep:
    """In place of a part that is nested too deeply to look at."""


def _first_bad_part(value: Any, default: Callable[[Any], Any] | None) -> str | None:
    """Say where in a value the first part is that JSON cannot hold: ``$.rows[3].created is a datetime``."""
    for path, part in parts_of(value):
        if part is TooDeep:
            return f"{path[:60]}... is nested too deeply, or holds itself"
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, str | int | float | bool | None):
                    return f"{path} has a key that is {typename(key)}"
        elif isinstance(part, float):
            if part != part or part in (float("inf"), float("-inf")):
                return f"{path} is {part}"
        elif not isinstance(part, str | int | list | tuple | None):
            if default is None:
                return f"{path} is {typename(part)}"
            if is_async(part):
                return f"{path} is {typename(part)}, which nobody would run"
    return None


def typename(value: Any) -> str:
    """Return the name of a value's type with its article."""
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
