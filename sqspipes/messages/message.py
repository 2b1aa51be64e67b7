"""Message and Delivery, the ids, and the one place that knows the body format.

A body is ASCII JSON::

    {"sqspipes": 1, "id": "...", "group": "...", "priority": 0, "put": 1700000000.0, "redrives": 0, "value": ...}

``group`` is there when the message was put with one. A dead letter also has ``dead`` (an object), and ``raw``
in place of ``value`` when its body could not be read. A message that was redriven has ``origin``, the identity of
the one that died, and ``origin_of``, which says of which message. Keys that this version does not know are kept and
travel on. Any other JSON text is a foreign body: a value whose id is the broker's message id.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqspipes.errors import DecodingError, NewerFormatError, OptionError
from sqspipes.messages.values import encode_value, typename

#: The version this module writes; it reads this one and every older one.
FORMAT = 1

#: Characters in a group or an id, as people write them.
LONGEST_NAME = 1_000
_TOO_LONG = 10**LONGEST_NAME

#: What a dead letter adds to its message at most, in bytes. Every hand-off leaves this much free, so that any
#: message that was accepted once also fits as a dead letter.
LETTER_BYTES = 8_192

# Message group and deduplication ids: up to 128 characters, ASCII letters, digits and punctuation.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
_LEGAL = re.compile(r"[!-~]{1,128}")
_KNOWN = {
    *("sqspipes", "id", "group", "priority", "put", "redrives", "value", "raw", "dead"),
    *("origin", "origin_of"),
}


class Delivery(NamedTuple):
    """A received message, as the broker has it: opaque text, and the receipt to settle it with.

    ``id`` is the broker's message id: no other message of the broker ever has it, and this one has it at each
    receive. ``group`` is the group as the broker knows it, ``receives`` how often the
    message was received, this time included, ``sent`` when it was sent, in seconds since the epoch.
    """

    queue: str
    id: str
    receipt: str
    receives: int
    body: str
    group: str
    sent: float


@dataclass(frozen=True, slots=True)
class Death:
    """Why a message is a dead letter, and where it was: its level is the message's own priority.

    ``origin`` is the identity that the message had, for the redrive; empty where nobody wrote it down.
    """

    task: str
    error_type: str
    error: str
    traceback: str
    attempts: int
    died: float
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A value on its way. ``group`` is None when it was put without one: then it is a group of its own.

    ``value`` is what the task gets; ``raw`` is the text of a body that could not be read, else None.
    ``extra`` holds keys of the body that this version does not know.

    ``identity`` is what tells a stored message from every other one, whatever its body says: the ids of all that
    comes of it are derived from it. It is the broker's message id; that of a message which a redrive put back is the
    identity of the message that died. It is empty as long as no broker has stored the message.
    """

    id: str
    value: Any
    group: str | None = None
    priority: int = 0
    first_put: float = field(default_factory=time.time)
    redrives: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    death: Death | None = None
    raw: str | None = None
    identity: str = ""

    @property
    def lane(self) -> str:
        """The group in the broker's alphabet."""
        return legal(self.id if self.group is None else self.group)

    @property
    def key(self) -> str:
        """The deduplication id: what was put again with the same id and group has the same one.

        A message without a group has the lane of its id, and a group may have that very name: they are told apart.
        """
        id = legal(self.id)
        return id if self.group is None or self.lane != id else derived("grouped", id)


# Names and ids


def legal(name: str) -> str:
    """Return a group or an id as SQS accepts it: as it is, or the hash of what SQS would refuse."""
    if _LEGAL.fullmatch(name):
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def checked_name(option: str, name: Any) -> str:
    """Return a group or an id that a user gave, as text: a member of an enumeration of texts or ints is its value."""
    if isinstance(name, int) and not isinstance(name, bool):
        if abs(name) < _TOO_LONG:
            return int.__repr__(name)
        name = f"an int of more than {LONGEST_NAME:,} digits"
    elif isinstance(name, str):
        text = str.__str__(name)
        if 0 < len(text) <= LONGEST_NAME:
            return text
        name = f"a text of {len(text)} characters" if text else "an empty text"
    else:
        name = repr(name)
    raise OptionError(f"{option} is {name}: allowed is a text of 1 to {LONGEST_NAME:,} characters, or an int")


def derived(*parts: str | int) -> str:
    """Return an id that is a function of the parts, and of nothing else."""
    text = "".join([f"{len(part)}:{part}" for part in map(str, parts)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def result_id(identity: str, task: str) -> str:
    """The id of the one result of a call for the message with this identity."""
    return derived("result", identity, task)


def output_id(kind: str, identity: str, task: str, content: str, equals: int) -> str:
    """The id of one of several outputs; ``equals`` counts the equal ones before it in the same call.

    ``kind`` is ``"output"`` or ``"rollback"``: what a rollback hands on is another output than what its call did.
    """
    return derived(kind, identity, task, content, equals)


def content_of(task: str, group: str | None, priority: int, text: str) -> str:
    """Return what makes an output equal to another one: its destination, and its JSON but for the order of keys."""
    return derived(task, group or "", priority, _sorted(text))


def _sorted(text: str) -> str:
    """Return JSON text with the keys of each object sorted."""
    if "{" not in text:
        return text
    try:
        return _sorting.encode(_decoder.decode(text))
    except (ValueError, RecursionError):  # too deep, or a number too long: as it is
        return text


def letter_id(stored: str, task: str) -> str:
    """The deduplication id, and group, of a message's dead letter; ``stored`` is the broker's message id.

    A message that was put back, by a redrive or by another program, has another one: its next letter is a new one.
    """
    return derived("letter", stored, task)


def redrive_id(stored: str) -> str:
    """The deduplication id of what a redrive puts back; ``stored`` is the broker's message id of the letter.

    It is the same when the redrive is repeated.
    """
    return derived("redrive", stored)


def _origin_of(identity: str, id: str, group: str | None, redrives: int) -> str:
    """Return the mark of an origin that was written for this message.

    Workers of older versions copy unknown keys to what they hand on: there the origin is somebody else's.
    """
    return derived("origin", identity, id, group or "", redrives)


# The body


def encode(message: Message, value: str | None = None) -> str:
    """Return a message's body; ``value`` is its value's JSON text where the caller has it already."""
    redriven = bool(message.redrives > 0 and message.identity and message.death is None)
    if message.death is None and message.raw is None and not message.extra and not redriven:
        return _plain(message, encode_value(message.value, "value") if value is None else value)
    head: dict[str, Any] = dict(message.extra)
    head.update(sqspipes=FORMAT, id=message.id)
    if message.group is not None:
        head["group"] = message.group
    head.update(priority=message.priority, put=round(message.first_put, 3), redrives=message.redrives)
    if redriven:
        origin_of = _origin_of(message.identity, message.id, message.group, message.redrives)
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


def _plain(message: Message, value: str) -> str:
    """Return the body of most messages: nothing in it but what each one has."""
    group = "" if message.group is None else f'"group":{_quoted(message.group)},'
    return (
        f'{{"sqspipes":{FORMAT},"id":{_quoted(message.id)},{group}"priority":{message.priority},'
        f'"put":{round(message.first_put, 3)!r},"redrives":{message.redrives},"value":{value}}}'
    )


def decode(delivery: Delivery, level: int = 0) -> Message:
    """Return the message of a delivery from a queue of a level, which a body that names none has.

    A foreign body's id is the broker's message id.
    """
    try:
        body = _parsed(delivery.body)
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"the body is not JSON: {error}") from error
    version = body.get("sqspipes") if isinstance(body, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        return foreign(delivery, body, level=level)
    if version > FORMAT:
        raise NewerFormatError(f"the body has format {version}, this sqspipes reads up to {FORMAT}")
    return _usual(body, delivery.id) or _read(body, delivery.id, level)


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
_sorting = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_quoted = json.encoder.encode_basestring_ascii


def _parsed(text: str) -> Any:
    try:
        body, end = _decoder.raw_decode(text)
    except ValueError:
        end = -1
    # The slower way takes blanks around it, and tells errors.
    return body if end == len(text) else _decoder.decode(text)


def _usual(body: dict[str, Any], stored: str) -> Message | None:
    """Return the message of a body that has what ``_plain`` writes and nothing else, or None."""
    id, group, priority = body.get("id"), body.get("group"), body.get("priority")
    put, redrives = body.get("put"), body.get("redrives")
    keys = 6 if group is None else 7
    if len(body) != keys or "value" not in body or not (id and type(id) is str and type(put) is float):
        return None
    if not (type(priority) is type(redrives) is int and 0 <= priority <= _MOST and 0 <= redrives <= _MOST):
        return None
    if not (0 <= put < math.inf and (group is None or (group and type(group) is str))):
        return None
    return Message(id, body["value"], group, priority, put, redrives, identity=stored)


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
        stored = origin if body.get("origin_of") == _origin_of(origin, id, group, redrives) else stored
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
