"""Bodies that nobody should put into a queue: what a foreign program, a broken one or an enemy may send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import hypothesis
from hypothesis import strategies as st

from sqspipes.brokers.base import Broker, Entry, Kind
from sqspipes.defaults import MESSAGE_BYTES

#: Where a body has an id of its own: two messages with one id are one message, and here each counts.
_ID = "@id@"

_fragments = st.sampled_from(
    [
        "NaN",
        "-Infinity",
        "1e999",
        "-1e999",
        "1e-999",
        "1" * 4_300,
        "-" + "9" * 5_000,
        "0." + "3" * 5_000,
        "-0",
        '{"a":1,"a":2}',
        '{"":null}',
        '"\\ud800"',
        '"\\udfff\\u0000"',
        "\ufeff{}",
        "[1,]",
        "'a'",
        "{a:1}",
        "nul",
        '{"sqspipes":true,"value":1}',
        '{"sqspipes":"1","value":1}',
        '{"sqspipes":1.0}',
        '{"sqspipes":null}',
        '{"sqspipes":1e999}',
        " ",
        "\x00",
        "\x7f\x1b[2J",
        "%s%n",
        "\u202e",
        "\U0001f4a9",
    ]
)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_binary = st.binary(min_size=1, max_size=200).map(lambda raw: raw.decode("latin-1"))
_broken = st.binary(min_size=1, max_size=80).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def nested(depth: int, opening: str, closing: str = "") -> str:
    """Return JSON, or nearly, that is nested so deeply; without ``closing`` it never ends."""
    return opening * depth + ("1" + closing * depth if closing else "")


_pairs = st.sampled_from([("[", "]"), ('{"a":', "}"), ("[", ""), ('{"a":', ""), ('[{"a":', "}]")])
_deep = st.builds(
    lambda depth, pair: nested(depth, *pair),
    st.integers(1, 60) | st.integers(900, 1_100) | st.just(20_000),
    _pairs,
)


def ours(fields: dict[str, Any], rest: str = "") -> str:
    """Return a body of our own format with these fields; ``rest`` is put in as it is."""
    return json.dumps({"sqspipes": 1, "id": _ID, "value": 1, **fields})[:-1] + rest + "}"


_wrong = _json | st.sampled_from([0, -1, 10**30, 10**4_000, "", 1e308, float("inf"), "x" * 2_000])
_death = st.dictionaries(
    st.sampled_from(["task", "error_type", "error", "traceback", "attempts", "died", "more"]),
    _wrong,
    max_size=7,
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "group": _wrong,
        "priority": _wrong,
        "put": _wrong,
        "redrives": _wrong,
        "raw": _wrong,
        "value": _wrong,
        "dead": _wrong | _death,
        "more": _wrong,
        "sqspipes": st.sampled_from([1, 0, -5, -(10**50)]),
    },
)
_rests = st.sampled_from(["", "", ',"more":1e999', ',"value":2', ',"redrives":-3', ',"dead":{"died":1e999}'])
_deep_rests = st.builds(
    lambda key, depth, pair: f',"{key}":{nested(depth, *pair)}',
    st.sampled_from(["more", "value", "dead", "group"]),
    st.integers(900, 1_010),
    st.sampled_from([("[", "]"), ('{"a":', "}")]),
)
_without = st.builds(
    lambda fields, key: json.dumps({k: v for k, v in json.loads(ours(fields)).items() if k != key}),
    _fields,
    st.sampled_from(["id", "value", "put"]),
)
_sizes = st.integers(0, MESSAGE_BYTES) | st.integers(MESSAGE_BYTES - 9_000, MESSAGE_BYTES)
_large = st.builds(
    lambda size, head, tail, stuff: (head + stuff * size)[: size - len(tail)] + tail,
    _sizes.filter(lambda size: size > 100),
    st.sampled_from(
        ["", '"', '{"sqspipes":1,"id":"@id@","value":"', '{"sqspipes":1,"value":1,"id":"', "[" * 50]
    ),
    st.sampled_from(["", '"', '"}']),
    st.sampled_from(["x", "0", "\x7f"]),
)

#: One body, of any kind; large ones are rare.
bodies = st.integers(0, 399).flatmap(
    lambda dice: (
        _large
        if dice == 0
        else st.one_of(
            _fragments,
            _binary,
            _broken,
            _json.map(json.dumps),
            _deep,
            _without,
            st.builds(ours, _fields, _rests | _deep_rests),
            st.builds(ours, st.just({}), _deep_rests),
        )
    )
)

#: A body of a version to come. It is JSON, and anything goes in it.
newer = st.builds(
    lambda version, fields: ours({**fields, "sqspipes": version}),
    st.integers(2, 9) | st.just(10**400),
    _fields,
).filter(lambda body: "NaN" not in body and "Infinity" not in body)


def drawn(strategy: st.SearchStrategy[str], count: int, seed: int) -> list[str]:
    """Return so many bodies, the same ones for the same seed."""
    found: list[str] = []

    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(body: str) -> None:
        found.append(body.replace(_ID, f"poison-{len(found)}"))

    round = 0
    while len(found) < count:
        hypothesis.seed(seed + round)(draw)()
        round += 1
    return found[:count]


def encodable(text: str) -> bool:
    """Say whether a text is without halves of surrogate pairs."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def sent(broker: Broker, queue: str, texts: Sequence[str]) -> list[str]:
    """Put bodies straight into a queue; return those that it took, in order.

    No queue carries halves of surrogate pairs: the embedded one says so, the emulator fails on them.
    """
    taken: list[str] = []
    batch: list[Entry] = []

    def send() -> None:
        answers = broker.send(queue, batch) if batch else []
        assert all(answer.kind in (Kind.OK, Kind.NEVER) for answer in answers), answers
        taken.extend(
            entry.body for entry, answer in zip(batch, answers, strict=True) if answer.kind is Kind.OK
        )
        batch.clear()

    for number, body in enumerate(texts):
        if not broker.limits.exact and not encodable(body):
            continue
        group = f"shared-{number % 7}" if number % 3 == 0 else f"own-{number}"
        entry = Entry(body, group, f"body-{number}")
        if len(batch) == 10 or sum(each.size for each in batch) + entry.size > broker.limits.request_bytes:
            send()
        batch.append(entry)
    send()
    return taken
