"""Compact JSON: ``json.dumps`` without blanks, in half the time for small values.

``JSONEncoder.encode`` makes a new encoder in C for each value, and keeps account of where it is, to find a value that
holds itself. Here an encoder without that account is made once, for values that cannot hold themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from json import encoder as _json_encoder
from types import NoneType
from typing import Any

#: Types whose values hold nothing.
PLAIN = frozenset({str, int, float, bool, NoneType})

_usual = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _made() -> Callable[[Any, int], Any] | None:
    """Return the encoder in C; None where there is none, or one of another kind."""
    make: Any = getattr(_json_encoder, "c_make_encoder", None)
    quoted = _json_encoder.encode_basestring_ascii
    try:
        made = make(None, json.JSONEncoder().default, quoted, None, ":", ",", False, False, False)
        return made if "".join(made({"a": [1]}, 0)) == '{"a":[1]}' else None
    except Exception:
        return None


_fast = _made()


def encode(value: Any) -> str:
    """Return a value as JSON text, in ASCII; raises ``TypeError``, ``ValueError`` or ``RecursionError``."""
    kind = type(value)
    if kind is str:
        return _json_encoder.encode_basestring_ascii(value)
    if kind is list or kind is tuple:
        holds_no_other = PLAIN.issuperset(map(type, value))
    elif kind is dict:
        holds_no_other = PLAIN.issuperset(map(type, value.values()))
    else:
        holds_no_other = kind in PLAIN
    return encode_known(value) if holds_no_other else _usual(value)


def encode_known(value: Any) -> str:
    """Return a value that certainly does not hold itself as JSON text; raises the same errors."""
    return _usual(value) if _fast is None else "".join(_fast(value, 0))
