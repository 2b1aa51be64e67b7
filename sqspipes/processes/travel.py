"""Travel: what goes to another process, pickled; what cannot go is named before any process is started."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from sqspipes.errors import OptionError


class _Pickler(pickle.Pickler):
    """Pickles, and refuses what another process would look for in a main module that it cannot import."""

    def reducer_override(self, obj: Any) -> Any:
        """Leave everything to pickle but the names of a main module that is not there."""
        is_name = isinstance(obj, FunctionType | type)
        if is_name and obj.__module__ == "__main__" and not _main_is_importable():
            raise pickle.PicklingError("no other process can import the __main__ that it is defined in")
        return NotImplemented


def packed(whole: Any, parts: Iterable[tuple[str, Any]]) -> bytes:
    """Return something pickled.

    Raises ``OptionError`` with the name of the first of its parts, pairs of name and value, that cannot travel.
    """
    try:
        return _pickled(whole)
    except OptionError:
        raise
    except Exception as error:
        for name, part in parts:
            _check(name, part)
        raise OptionError(f"the client cannot go to another process: {error}") from error


def _check(name: str, part: Any) -> None:
    try:
        _pickled(part)
    except Exception as error:
        way = "a function of a module's top level"
        if name.endswith("method"):
            way = "a function of a module's top level, or 'package.module:function'"
        elif not callable(part):
            way = "what pickle takes"
        raise OptionError(
            f"{name} is {part!r}, which cannot go to another process ({error}): allowed with processes is {way}"
        ) from error


def _pickled(part: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(part)
    return file.getvalue()


def _main_is_importable() -> bool:
    """Say whether a spawned process gets what this one's main module defines, as multiprocessing decides it."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return name != "__main__" and not name.endswith(".__main__")
    return getattr(main, "__file__", None) is not None
