"""Checks of options: each returns the value it was given, or raises an error that names all there is to know."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from sqspipes.defaults import LONGEST_SECONDS, MOST_RETRIES
from sqspipes.errors import OptionError


def refuse(option: str, value: Any, allowed: str) -> OptionError:
    """Return the error for a value that an option does not allow."""
    try:
        shown = repr(value)
    except Exception:  # of a number of 5,000 digits, for one
        shown = f"a {type(value).__name__} that cannot be printed"
    return OptionError(f"{option} is {shown}: allowed is {allowed}")


def checked_callables(option: str, given: Any, what: str) -> tuple[Any, ...]:
    """Return callables that are given as one or as a list of them; ``what`` names one."""
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    for one in found:
        if not callable(one):
            raise refuse(option, one, f"{what}, or a list of them")
    return found


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for a word that is almost a known one, else nothing."""
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def checked_int(option: str, value: Any, low: int, high: int) -> int:
    """Return an int from low to high."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return int(value)  # a member of an enumeration prints as something else
    raise refuse(option, value, f"{low:,}" if low == high else f"a whole number from {low:,} to {high:,}")


def checked_seconds(option: str, value: Any, low: float = 0.0, high: float = LONGEST_SECONDS) -> float:
    """Return seconds from low to high as a float."""
    if _is_number(value) and low <= value <= high:
        return float(value)
    raise refuse(option, value, f"seconds, {low:g} to {high:,.10g}")


def capped_seconds(option: str, value: Any, most: float = LONGEST_SECONDS) -> float:
    """Return seconds that were worked out while a task ran, ``most`` for any time that no clock can wait for."""
    if _is_number(value) and value >= 0:
        return most if value > LONGEST_SECONDS else float(value)
    raise refuse(option, value, "seconds, 0 or more")


def checked_timeout(option: str, value: Any) -> float:
    """Return the seconds for which a caller waits, infinity for any time that no clock can wait for."""
    return capped_seconds(option, value, math.inf)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked_bool(option: str, value: Any) -> bool:
    """Return True or False, and nothing that merely looks like it."""
    if isinstance(value, bool):
        return value
    raise refuse(option, value, "True or False")


def checked_choice(option: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return one of the choices."""
    if isinstance(value, str) and value in choices:
        return str.__str__(value)
    allowed = " or ".join(map(repr, choices))
    raise OptionError(f"{option} is {value!r}: allowed is {allowed}{did_you_mean(value, choices)}")


def checked_retries(option: str, value: Any) -> int | None:
    """Return how often a failed call is repeated; None is for ever."""
    return None if value is None else checked_int(option, value, 0, MOST_RETRIES)


def checked_backoff(option: str, value: Any) -> Any:
    """Return seconds, a callable of (attempt, error), or None for the default."""
    if value is None or callable(value):
        return value
    return checked_seconds(option, value)


def checked_exceptions(option: str, value: Any) -> tuple[type[BaseException], ...]:
    """Return exception types as a tuple."""
    types = value if isinstance(value, tuple | list) else (value,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types):
        return tuple(types)
    raise refuse(option, value, "a tuple of exception types")
