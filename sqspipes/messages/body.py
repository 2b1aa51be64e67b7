"""The body format, which no other module knows.

A body is ASCII JSON::

    {"sqspipes": 1, "id": "...", "group": "...", "priority": 0, "put": 1700000000.0, "redrives": 0, "value": ...}

``group`` is there when the message was put with one. A dead letter also has ``dead`` (an object), and ``raw``
in place of ``value`` when its body could not be read. A message that was redriven has ``origin``, the identity of
the one that died, and ``origin_of``, which says of which message. Keys that this version does not know are kept and
travel on. Any other JSON text is a foreign body: a value whose id is the broker's message id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqspipes.errors import DecodingError, NewerFormatError
from sqspipes.messages.ids import origin_mark
from sqspipes.messages.message import Death, Delivery, Message
from sqspipes.messages.values import encode_value, typename

#: The version this module writes; it reads this one and every older one.
FORMAT = 1

_KNOWN = {
    *("sqspipes", "id", "group", "priority", "put", "redrives", "value", "raw", "dead"),
    *("origin", "origin_of"),
}


def encode(message: Message, value: str | None = None) -> str:
    """Return a message's body; ``value`` is its value's JSON text where the caller has it already."""
    redriven = bool(message.redrives > 0 and message.identity and message.death is None)
    if message.death is None and message.raw is None and not message.extra and not redriven:
        text = encode_value(message.value, "value") if value is None else value
        return plain(message.id, message.group, message.priority, message.first_put, text, message.redrives)
    head: dict[str, Any] = dict(message.extra)
    head.update(sqspipes=FORMAT, id=message.id)
    if message.group is not None:
        head["group"] = message.group
    head.update(priority=message.priority, put=round(message.first_put, 3), redrives=message.redrives)
    if redriven:
        origin_of = origin_mark(message.identity, message.id, message.group, message.redrives)
        head.update(origin=message.identity, origin_of=origin_of)
    if message.death is not None:
        death = message.death
        head["dead"] = {
            "task": death.task,
            "error_type": death.error_type,
            "error": death.error,
            "traceback": death.traceback,
            "attempts": death.attempts,
            "died": death.died,
        }
        if death.origin:
            head["dead"]["origin"] = death.origin
    if message.raw is not None:
        return encode_value({**head, "raw": message.raw}, "the body")
    if value is None:
        value = encode_value(message.value, "value")
    # Unknown keys may hold what can be read and not be written: a number out of range, or nesting.
    return f'{encode_value(head, "the body")[:-1]},"value":{value}}}'


def plain(id: str, group: str | None, priority: int, first_put: float, value: str, redrives: int = 0) -> str:
    """Return the body of most messages: nothing in it but what each one has; ``value`` is JSON text."""
    of_group = "" if group is None else f'"group":{_quoted(group)},'
    return (
        f'{{"sqspipes":{FORMAT},"id":{_quoted(id)},{of_group}"priority":{priority},'
        f'"put":{round(first_put, 3)!r},"redrives":{redrives},"value":{value}}}'
    )


def decode(delivery: Delivery, level: int = 0) -> Message:
    """Return the message of a delivery from a queue of a level, which a body that names none has.

    A foreign body's id is the broker's message id.
    """
    if (usual := _usual(delivery.body, delivery.id)) is not None:
        return usual
    try:
        body = _decoder.decode(delivery.body)
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"the body is not JSON: {error}") from error
    version = body.get("sqspipes") if isinstance(body, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        return foreign(delivery, body, level=level)
    if version > FORMAT:
        raise NewerFormatError(f"the body has format {version}, this sqspipes reads up to {FORMAT}")
    return _read(body, delivery.id, level)


def foreign(delivery: Delivery, value: Any = None, *, raw: str | None = None, level: int = 0) -> Message:
    """Return the message of a body that is not ours: its value, or its raw text if it cannot be read."""
    group = None if delivery.group == delivery.id else delivery.group
    id = delivery.id
    return Message(id, value, group, level, delivery.sent, raw=raw, identity=id)


def redriven(message: Message) -> Message:
    """Return a dead letter's message for another try in its task."""
    origin = message.death.origin if message.death is not None else ""
    identity = origin or message.identity
    return replace(message, death=None, redrives=message.redrives + 1, identity=identity)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_raw_decode = _decoder.raw_decode
_quoted = json.encoder.encode_basestring_ascii


#: What ``plain`` writes before the value.
_USUAL = re.compile(
    rf'\{{"sqspipes":{FORMAT},'
    r'"id":"([^"\\\x00-\x1f]+)",(?:"group":"([^"\\\x00-\x1f]+)",)?"priority":(0|[1-9][0-9]{0,8}),'
    r'"put":((?:0|[1-9][0-9]{0,11})\.[0-9]{1,3}),"redrives":(0|[1-9][0-9]{0,8}),"value":'
)


def _usual(text: str, stored: str) -> Message | None:
    """Return the message of a body that ``plain`` has written, None of any other."""
    head = _USUAL.match(text)
    if head is None:
        return None
    try:
        value, end = _raw_decode(text, head.end())
    except (ValueError, RecursionError):
        return None
    if end != len(text) - 1 or text[end] != "}":
        return None
    id, group, priority, put, redrives = head.groups()
    return Message(id, value, group, int(priority), float(put), int(redrives), _NO_KEYS, None, None, stored)


def _read(body: dict[str, Any], stored: str, level: int) -> Message:
    """Check a body of our format, field by field."""
    death = body.get("dead")
    raw = _typed(body, "raw", str, None)
    if raw is None and "value" not in body:
        raise DecodingError("the body has no value")
    id = _typed(body, "id", str)
    if not id:
        raise DecodingError("the body's id is empty")
    group = _typed(body, "group", str, None) or None
    redrives = _typed(body, "redrives", int, 0)
    origin = body.get("origin")
    # A letter that another program put back is a message of its own, so nothing is read of one.
    if death is None and redrives > 0 and isinstance(origin, str) and origin:
        stored = origin if body.get("origin_of") == origin_mark(origin, id, group, redrives) else stored
    return Message(
        id=id,
        value=body.get("value"),
        group=group,
        priority=_typed(body, "priority", int, level),
        first_put=_seconds(body, "put"),
        redrives=redrives,
        extra={key: value for key, value in body.items() if key not in _KNOWN},
        death=None if death is None else _read_death(death),
        raw=raw,
        identity=stored,
    )


def _read_death(death: Any) -> Death:
    if not isinstance(death, dict):
        raise DecodingError(f"the body's dead is {typename(death)}, not an object")
    return Death(
        task=_typed(death, "task", str, ""),
        error_type=_typed(death, "error_type", str, ""),
        error=_typed(death, "error", str, ""),
        traceback=_typed(death, "traceback", str, ""),
        attempts=_typed(death, "attempts", int, 0),
        died=_seconds(death, "died"),
        origin=origin if isinstance(origin := death.get("origin"), str) else "",
    )


#: What most bodies have beside the keys that are known.
_NO_KEYS: Mapping[str, Any] = {}

_missing = object()

#: The largest number of attempts, redrives or levels that is taken for one.
_MOST = 2**31


def _typed(body: Mapping[str, Any], key: str, kind: Any, default: Any = _missing) -> Any:
    value = body.get(key, default)
    if value is _missing:
        raise DecodingError(f"the body has no {key}")
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
        raise DecodingError(f"the body's {key} is {typename(value)}")
    if kind is int and abs(value) > _MOST:
        raise DecodingError(f"the body's {key} is out of range")
    return value


def _seconds(body: Mapping[str, Any], key: str) -> float:
    try:
        seconds = float(_typed(body, key, (int, float), 0.0))
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise DecodingError(f"the body's {key} is out of range")
    return seconds
