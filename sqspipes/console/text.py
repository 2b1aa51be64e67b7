"""Text: errors and counts as people read them."""

from __future__ import annotations

from sqspipes import SqspipesError, one_line


def in_one_line(error: BaseException) -> str:
    """Return what an error says, in one line; with its kind, unless it is one of ours that says all there is."""
    said = one_line(" ".join(str(error).split()))
    if isinstance(error, SqspipesError) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def count_of(number: int, one: str) -> str:
    """Return ``1 value`` or ``1,000 values``."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"
