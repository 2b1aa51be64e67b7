"""The body format: any message goes round, any text is read or refused, and nothing else happens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqspipes.errors import DecodingError, EncodingError, NewerFormatError
from sqspipes.messages import body as body_module
from sqspipes.messages import ids
from sqspipes.messages.body import FORMAT, decode, encode, redriven
from sqspipes.messages.message import Death, Delivery, Message
from sqspipes.messages.values import encode_value
from tests.builders import delivery_of, shown

texts = st.text()
seconds = st.floats(0, 4e9).map(lambda value: round(value, 3))
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
OURS = {
    "sqspipes",
    "id",
    "group",
    "priority",
    "put",
    "redrives",
    "value",
    "raw",
    "dead",
    "origin",
    "origin_of",
}
extras = st.dictionaries(texts.filter(lambda key: key not in OURS), values, max_size=3)
deaths = st.builds(
    Death,
    task=texts,
    error_type=texts,
    error=texts,
    traceback=texts,
    attempts=st.integers(0, 10**6),
    died=seconds,
    origin=texts,
)
sound = st.builds(
    Message,
    id=st.text(min_size=1),
    value=values,
    group=st.none() | st.text(min_size=1),
    priority=st.integers(0, 15),
    first_put=seconds,
    redrives=st.integers(0, 10**6),
    extra=extras,
    death=st.none() | deaths,
    identity=st.just("broker-id"),
)


def plain(body: str) -> Any:
    """Return a body's JSON, of which nothing may be left to taste: a constant that is not JSON is an error."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} in {body}")

    return json.loads(body, parse_constant=refuse)


def decoded(body: str, **delivery: Any) -> Message:
    return decode(delivery_of(body, **{"id": "broker-id", **delivery}))


def ours(**changes: Any) -> str:
    """Return a body of ours with some keys changed; a key that is set to ``...`` is left out."""
    body = {"sqspipes": 1, "id": "x", "priority": 0, "put": 1.0, "redrives": 0, "value": 1, **changes}
    return json.dumps({key: value for key, value in body.items() if value is not ...})


# Round trips


@given(sound)
def test_message_comes_back_as_it_was(message: Message) -> None:
    body = encode(message)
    assert body.isascii()
    assert plain(body)["sqspipes"] == FORMAT
    back = decoded(body)
    assert back == message
    assert encode(back) == body  # equal is not enough: True is 1


@given(sound, st.text(min_size=1))
def test_raw_text_comes_back_as_it_was(message: Message, raw: str) -> None:
    letter = replace(message, value=None, raw=raw)
    assert decoded(encode(letter)) == letter


@given(sound)
def test_text_that_is_encoded_already_is_taken_as_it_is(message: Message) -> None:
    text = encode_value(message.value, "value")
    assert encode(message, text) == encode(message)


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "\x00", "é", "𝄞", " ", '"', "\\", "{}"])
def test_odd_text_comes_back_as_it_was(name: str) -> None:
    message = Message(id=name, value={name: name}, group=name, first_put=1.0, identity="broker-id")
    assert decoded(encode(message)) == message


@given(extras)
def test_keys_of_another_version_travel_on(extra: dict[str, Any]) -> None:
    message = decoded(ours(**extra))
    handed_on = decoded(encode(Message(id="y", value=2, extra=message.extra)))
    assert handed_on.extra == extra


@given(sound)
def test_redriven_message_is_the_same_message_once_more(message: Message) -> None:
    again = redriven(message)
    assert again.death is None
    assert again.redrives == message.redrives + 1
    assert (again.id, again.lane, again.value) == (message.id, message.lane, message.value)


# Identity


@given(sound)
def test_identity_is_the_brokers_id_whatever_the_body_says(message: Message) -> None:
    put = encode(replace(message, redrives=0))
    assert decoded(put, id="one").identity == "one"
    assert decoded(put, id="other").identity == "other"


@given(sound)
def test_redriven_message_has_the_identity_of_the_one_that_died(message: Message) -> None:
    died = replace(message, death=Death("t", "e", "e", "", 1, 1.0, origin="first"))
    letter = decoded(encode(died), id="letter")
    body = encode(redriven(letter))
    assert decoded(body, id="second").identity == "first"
    assert decoded(body, id="third").identity == "first"  # at each receive, and where it was moved
    assert encode(redriven(letter)) == body


@given(sound)
def test_letter_that_is_put_back_as_it_is_has_an_identity_of_its_own(message: Message) -> None:
    letter = encode(replace(message, death=Death("t", "e", "e", "", 1, 1.0, origin="first")))
    assert decoded(letter, id="moved").identity == "moved"


@pytest.mark.parametrize("changes", [{"id": "y"}, {"group": "h"}, {"redrives": 2}, {"redrives": 0}, {"origin": "z"},
                                     {"origin_of": 1}, {"origin": 1}, {"origin": ""}, {"dead": {}}])  # fmt: skip
def test_origin_counts_only_in_the_message_that_it_was_written_for(changes: dict[str, Any]) -> None:
    letter = Message("x", 1, "g", death=Death("t", "e", "e", "", 1, 1.0, origin="first"), identity="letter")
    body = json.loads(encode(redriven(letter)))
    assert decoded(json.dumps(body), id="second").identity == "first"
    copied = decoded(json.dumps({**body, **changes}), id="second")
    assert copied.identity == "second"
    assert copied.extra == {}  # nor does it travel on


@pytest.mark.parametrize("origin", [None, 1, ["x"], ""])
def test_letter_without_an_origin_is_redriven_with_its_own_identity(origin: Any) -> None:
    letter = decoded(ours(dead={"task": "t", "origin": origin}), id="letter")
    assert redriven(letter).identity == "letter"


def test_redriven_message_that_the_broker_buried_keeps_its_identity() -> None:
    letter = Message("x", 1, death=Death("t", "e", "e", "", 1, 1.0, origin="first"), identity="letter")
    killed = decoded(encode(redriven(letter)), id="buried")
    again = decoded(encode(redriven(killed)), id="second")
    assert (again.redrives, again.identity) == (2, "first")


# Foreign bodies


@given(values.filter(lambda value: not isinstance(value, dict) or "sqspipes" not in value))
def test_any_other_json_is_a_value_with_the_brokers_id(value: Any) -> None:
    message = decoded(json.dumps(value), id="broker-id", group="theirs")
    assert (message.id, message.value, message.group) == ("broker-id", value, "theirs")
    assert message.first_put == 1_700_000_000.0
    assert message.raw is None


@pytest.mark.parametrize("version", [None, True, False, "1", 1.0, [1], {}])
def test_version_that_is_no_number_is_a_foreign_one(version: Any) -> None:
    body = {"sqspipes": version, "id": "theirs"}
    assert decoded(json.dumps(body), id="broker-id").value == body


def test_foreign_message_that_is_its_own_group_has_none() -> None:
    assert decoded("1", id="same", group="same").group is None


# What is not a message


@pytest.mark.parametrize(
    "body",
    ["", " ", "{", "nul", "'text'", "{1: 2}", "[1,]", '{"a":NaN}', "Infinity", "-Infinity", "1 2", "\ud800",
     "[" * 100_000, '{"a":' * 100_000, "9" * 5_000, "\x00", '"\n"'],
)  # fmt: skip
def test_text_that_is_not_json_is_refused(body: str) -> None:
    with pytest.raises(DecodingError):
        decoded(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ...}, {"id": ""}, {"id": None}, {"id": 1}, {"id": ["x"]},
        {"value": ...},
        {"group": 1}, {"group": False}, {"group": {}},
        {"priority": None}, {"priority": "1"}, {"priority": 1.0}, {"priority": True},
        {"put": "1"}, {"put": None}, {"put": True}, {"put": 10**400},
        {"redrives": "1"}, {"redrives": 0.5}, {"redrives": None}, {"redrives": False},
        {"raw": 1}, {"raw": ["x"]},
        {"dead": 1}, {"dead": []}, {"dead": "x"}, {"dead": {"task": 1}}, {"dead": {"attempts": "1"}},
        {"dead": {"died": "now"}}, {"dead": {"died": 10**400}},
    ],
    ids=shown,
)  # fmt: skip
def test_field_of_a_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodingError):
        decoded(ours(**changes))


@pytest.mark.parametrize("field", ['"put": 1e999', '"put": -1e999', '"dead": {"died": 1e999}'])
def test_time_without_end_is_refused(field: str) -> None:
    with pytest.raises(DecodingError):
        decoded(f'{{"sqspipes": 1, "id": "x", "value": 1, {field}}}')


@given(st.integers(FORMAT + 1, 10**9), values)
def test_newer_body_is_given_back_and_not_judged(version: int, anything: Any) -> None:
    with pytest.raises(NewerFormatError):
        decoded(json.dumps({"sqspipes": version, "id": anything}))


@given(
    st.text()
    | st.text('{}[]":,0123456789.eE-+ntrufalse\\ ')
    | st.binary().map(lambda raw: raw.decode("latin-1"))
)
@example('{"sqspipes":1}')
def test_arbitrary_text_is_read_or_refused(body: str) -> None:
    try:
        message = decoded(body)
    except (DecodingError, NewerFormatError):
        return
    assert isinstance(message.id, str)


@given(
    st.fixed_dictionaries(
        {"sqspipes": st.just(1) | values},
        optional=dict.fromkeys(sorted(OURS - {"sqspipes", "dead"}), values)
        | {"id": texts | values, "value": values, "put": numbers, "priority": numbers}
        | {"dead": values | st.dictionaries(st.sampled_from(["task", "error", "attempts", "died"]), values)},
    )
)
def test_arbitrary_fields_are_read_or_refused_and_what_is_read_can_be_sent_on(body: dict[str, Any]) -> None:
    try:
        message = decoded(json.dumps(body))
    except (DecodingError, NewerFormatError):
        return
    again = encode(message)
    plain(again)
    assert decoded(again).id == message.id
    assert ids.LEGAL.fullmatch(message.lane)


# Values that are not JSON


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"x", "value is not JSON: $ is a bytes"),
        ({"rows": [{}, {"made": object()}]}, "$.rows[1].made is an object"),
        ({"a": [1.0, float("nan")]}, "$.a[1] is nan"),
        ([float("inf")], "$[0] is inf"),
        ({"a": {(1, 2): 3}}, "$.a has a key that is a tuple"),
        ({"a": {1, 2}}, "$.a is a set"),
    ],
    ids=shown,
)
def test_error_says_where_a_value_is_not_json(value: Any, place: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode_value(value, "value")
    assert place in str(caught.value)


def test_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodingError):
        encode_value(value, "value")


def test_value_that_is_nested_too_deeply_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(EncodingError):
        encode_value(value, "value")


def test_default_has_the_say_over_what_json_cannot_hold() -> None:
    assert encode_value({1, 2}, "value", default=sorted) == "[1,2]"


# The short way


def told(delivery: Delivery) -> Message | str:
    """Return what comes of a body: its message, or the error."""
    try:
        return decode(delivery)
    except (DecodingError, NewerFormatError) as error:
        return f"{type(error).__name__}: {error}"


def check_both_ways(text: str) -> None:
    """Demand that a body is read as if there were no short way."""
    delivery = delivery_of(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_module, "_usual", lambda text, stored: None)
        expected = told(delivery)
    assert told(delivery) == expected


@given(sound)
def test_usual_bodies_are_read_as_by_the_long_way(message: Message) -> None:
    check_both_ways(encode(message))


#: Names that need no escape in JSON.
easy = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\\\'), min_size=1)
usual = st.builds(
    lambda id, group, value, priority, put: Message(id, value, group, priority, put),
    easy,
    st.none() | easy,
    values,
    st.integers(0, 15),
    st.floats(0, 4e9).map(lambda value: round(value, 3)),
)


@given(usual)
def test_bodies_that_plain_writes_are_read_by_the_short_way(message: Message) -> None:
    text = encode(message)
    assert body_module._usual(text, "stored") is not None
    check_both_ways(text)


@given(usual.map(encode), st.data())
def test_bodies_that_were_changed_are_read_as_by_the_long_way(text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly behind the id: most of what there is to check is there.
        at = data.draw(st.integers(min(len(text), text.find('","')), len(text)) | st.integers(0, len(text)))
        put = data.draw(
            st.sampled_from(['"', "0", "-", "1e3", "\\", "}", "{", " ", "\n", '"value":2', ","]) | texts
        )
        text = text[:at] + put + text[at + data.draw(st.integers(0, 3)) :]
    check_both_ways(text)


def test_short_way_is_taken() -> None:
    delivery = delivery_of(encode(Message("id", [1], "group", 2, 1.5)))
    usual = body_module._usual(delivery.body, delivery.id)
    assert usual is not None
    assert usual == decode(delivery)


@pytest.mark.parametrize(
    "text",
    [
        '{"sqspipes":1,"id":"a","priority":007,"put":1.5,"redrives":0,"value":1}',
        '{"sqspipes":1,"id":"a","priority":0,"put":01.5,"redrives":0,"value":1}',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":00,"value":1}',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1,"value":2}',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1}}',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1} x',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":NaN}',
        '{"sqspipes":1,"id":"a\\u0000","priority":0,"put":1.5,"redrives":0,"value":1}',
        '{"sqspipes":1,"id":"a\tb","priority":0,"put":1.5,"redrives":0,"value":1}',
        '{"sqspipes":1,"id":"a","group":"","priority":0,"put":1.5,"redrives":0,"value":1}',
        '{"sqspipes":2,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1}',
        '{"sqspipes":1,"id":"a","priority":0,"put":1.5,"redrives":0,"value":1,"more":2}',
    ],
)
def test_bodies_that_are_nearly_usual_are_read_as_by_the_long_way(text: str) -> None:
    check_both_ways(text)
