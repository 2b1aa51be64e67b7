"""What SQS would not answer is an outage, by either transport: nobody takes a page for an empty queue."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqspipes.brokers.base import Answer, Broker, Depth, Entry, Kind, QueueSpec
from sqspipes.brokers.sqs import SqsBroker
from sqspipes.defaults import TRANSPORTS
from sqspipes.errors import BrokerError, BrokerUnavailableError, CredentialsError
from sqspipes.messages.message import Delivery
from sqspipes.testing.broker_contract.steps import kinds
from tests.scripted import Answering, Step, answer, cut, reply

QUEUE = "q.fifo"
PAGE = b"<html><h1>Sign in to the network</h1></html>"


class Server(Answering):
    """A server, and a broker that has it for SQS."""

    def __init__(self, transport: str) -> None:
        super().__init__()
        account = {"aws_key": "AKIA", "aws_secret": "x", "aws_region": "us-east-1"}
        self.broker = SqsBroker("sqs://", **account, endpoint_url=self.url, transport=transport)
        self._names = 0

    def new_queue(self) -> str:
        """Return the name of a queue that nobody asked for yet."""
        self._names += 1
        return f"q{self._names}.fifo"

    def says(self, action: str, result: object, status: str = "200 OK") -> Broker:
        """Have an action answered so, and return the broker."""
        self.steps = {action: reply(json.dumps(result).encode(), status)}
        return self.broker


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server and its broker, by either transport."""
    started = Server(request.param)
    yield started
    started.broker.close()
    started.close()


def receive(server: Server) -> list[Delivery]:
    return server.broker.receive(QUEUE, count=2, wait=0, lease=9, attempt="a")


def send(server: Server) -> list[Answer]:
    return server.broker.send(QUEUE, [Entry("one", "g", "1"), Entry("two", "g", "2")])


Ask = Callable[[Server], Any]

MESSAGE = {
    "MessageId": "m",
    "ReceiptHandle": "r",
    "Body": "b",
    "Attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": "g", "SentTimestamp": "1700000000000"},
}
DONE = {"Successful": [{"Id": "0"}, {"Id": "1"}]}
COUNTS = {
    "ApproximateNumberOfMessages": "3",
    "ApproximateNumberOfMessagesDelayed": "0",
    "ApproximateNumberOfMessagesNotVisible": "1",
}

#: Each method of a broker that asks SQS, the action that it becomes, and an answer that is good.
METHODS: dict[str, tuple[str, Ask, dict[str, Any]]] = {
    "send": ("SendMessageBatch", send, DONE),
    "ack": ("DeleteMessageBatch", lambda s: s.broker.ack(QUEUE, ["r", "s"]), DONE),
    "extend": (
        "ChangeMessageVisibilityBatch",
        lambda s: s.broker.extend(QUEUE, [("r", 9.0), ("s", 9.0)]),
        {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1", "Code": "InternalError", "SenderFault": False}]},
    ),
    "receive": ("ReceiveMessage", receive, {"Messages": [MESSAGE, {**MESSAGE, "MessageId": "n"}]}),
    "depth": ("GetQueueAttributes", lambda s: s.broker.depth(QUEUE), {"Attributes": COUNTS}),
    "message_bytes": (
        "GetQueueAttributes",
        lambda s: s.broker.message_bytes(s.new_queue()),
        {"Attributes": {"MaximumMessageSize": "1024"}},
    ),
    "names": ("ListQueues", lambda s: s.broker.names("q"), {"QueueUrls": ["http://x/0/q.fifo"]}),
    "tags": ("ListQueueTags", lambda s: s.broker.tags(QUEUE), {"Tags": {"a": "b"}}),
    "tag": ("TagQueue", lambda s: s.broker.tag(QUEUE, {"a": "b"}), {}),
    "untag": ("UntagQueue", lambda s: s.broker.tag(QUEUE, {"a": None}), {}),
    "purge": ("PurgeQueue", lambda s: s.broker.purge(QUEUE), {}),
    "delete": ("DeleteQueue", lambda s: s.broker.delete(QUEUE), {}),
    "queue_url": ("GetQueueUrl", lambda s: s.broker.queue_url(s.new_queue()), {}),
    "declare": ("GetQueueUrl", lambda s: s.broker.declare([QueueSpec(s.new_queue())]), {}),
}
WITHOUT_RESULT = ("tag", "untag", "purge", "delete")


def half(body: bytes) -> Step:
    """The connection ends in the middle of the body."""

    def step(connection: Any) -> None:
        answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[: len(body) // 2]))(
            connection
        )
        cut(connection)

    return step


def closed_after(head: bytes) -> Step:
    """The connection ends with what there is of an answer."""

    def step(connection: Any) -> None:
        answer(b"HTTP/1.1 200 OK\r\n" + head)(connection)
        cut(connection)

    return step


STRANGE: dict[str, Step] = {
    "page": reply(PAGE),
    "list": reply(b"[]"),
    "null": reply(b"null"),
    "number": reply(b"7"),
    "text": reply(b'"ok"'),
    "half JSON": reply(b'{"Messages": ['),
    "other members": reply(b'{"status": "ok"}'),
    "not UTF-8": reply(b'{"Messages": "\xff"}'),
    "UTF-16": reply("{}".encode("utf-16")),
    "deep": reply(b"[" * 200_000),
    "deep object": reply(b'{"Messages":' * 100_000),
    "long number": reply(b'{"Messages":' + b"9" * 5_000 + b"}"),
    "half": half(b'{"Messages": []}'),
    "without end": closed_after(b'\r\n{"Mess'),
    "long length": closed_after(b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}"),
    "longer": closed_after(b"Content-Length: 999999\r\n\r\n{}"),
    **{
        f"{status} page": reply(PAGE, str(status))
        for status in (206, 302, 401, 403, 404, 408, 413, 425, 429, 502)
    },
    **{f"{status} nothing": reply(b"", str(status)) for status in (206, 302, 403, 500)},
    "403 JSON": reply(b'{"message": "Forbidden"}', "403 Forbidden"),
    "500 list": reply(b"[]", "500 Internal Server Error"),
    **{
        f"{status} coded": reply(b'{"__type": "Anything", "message": "m"}', str(status))
        for status in (408, 425, 429, 500, 503)
    },
    "302 coded": reply(b'{"__type": "Anything", "message": "m"}', "302 Found"),
    **{
        f"error {number}": reply(body, "400 Bad Request")
        for number, body in enumerate(
            [
                b'{"__type": 7}',
                b'{"__type": ["a"]}',
                b'{"__type": "a", "message": {}}',
                b'{"__type": ""}',
                b'{"__type": "two words"}',
                b'{"__type": "esc\\u001b[31m"}',
                b"[" * 200_000,
                b"\xff",
                b"{",
            ]
        )
    },
}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_of_sqs_is_an_outage(server: Server, method: str) -> None:
    action, ask, _ = METHODS[method]
    taken = {}
    for name, step in {**STRANGE, "nothing": reply(b"")}.items():
        if name == "nothing" and method in WITHOUT_RESULT:
            continue
        server.steps = {action: step}
        try:
            taken[name] = ask(server)
        except BrokerUnavailableError:
            continue
    assert taken == {}


@pytest.mark.parametrize("method", METHODS)
def test_what_sqs_answers_is_taken(server: Server, method: str) -> None:
    action, ask, good = METHODS[method]
    if action == "GetQueueUrl":
        server.steps = {"GetQueueAttributes": reply(json.dumps({"Attributes": {"QueueArn": "a"}}).encode())}
    else:
        server.says(action, good)
    ask(server)
    if method in WITHOUT_RESULT:
        server.steps = {action: reply(b"")}
        ask(server)


def test_answer_without_messages_is_an_empty_receive(server: Server) -> None:
    for empty in ({}, {"Messages": []}, {"Messages": None}):
        server.says("ReceiveMessage", empty)
        assert receive(server) == []


def test_queue_without_tags_has_none(server: Server) -> None:
    for empty in ({}, {"Tags": {}}, {"Tags": None}):
        assert server.says("ListQueueTags", empty).tags(QUEUE) == {}


@pytest.mark.parametrize(
    "result",
    [
        *({"Successful": [{"Id": id}]} for id in ("7", "-1", "", "00", " 0", "\u0660", 0, None, True, ["0"])),
        *(
            {"Successful": [{}]},
            {"Successful": "x"},
            {"Successful": {"Id": "0"}},
            {"Failed": "x"},
            {"Failed": 7},
        ),
        {"Successful": [{"Id": "0"}, {"Id": "0"}]},
        {"Successful": [{"Id": "0"}], "Failed": [{"Id": "0", "Code": "x", "SenderFault": True}]},
        {"Successful": ["0"]},
        {"Failed": [{"Id": "0", "SenderFault": True}]},
        {"Failed": [{"Id": "0", "Code": 7, "SenderFault": True}]},
        {"Failed": [{"Id": "0", "Code": "x", "SenderFault": "false"}]},
        {"Failed": [{"Id": "0", "Code": "x", "SenderFault": True, "Message": ["m"]}]},
    ],
)
@pytest.mark.parametrize("method", ["send", "ack", "extend"])
def test_batch_that_was_answered_for_other_entries_was_not_answered(
    server: Server, method: str, result: dict[str, Any]
) -> None:
    action, ask, _ = METHODS[method]
    server.says(action, result)
    with pytest.raises(BrokerUnavailableError, match=f"{action} on {QUEUE}: the answer is not SQS's"):
        ask(server)


@pytest.mark.parametrize("result", [{}, {"Successful": []}, {"Failed": []}, {"Successful": [{"Id": "1"}]}])
@pytest.mark.parametrize("method", ["send", "ack", "extend"])
def test_entry_of_which_an_answer_does_not_speak_is_sent_again(
    server: Server, method: str, result: dict[str, Any]
) -> None:
    action, ask, _ = METHODS[method]
    server.says(action, result)
    assert kinds(ask(server)) == [Kind.AGAIN, Kind.OK if result.get("Successful") else Kind.AGAIN]


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return the message with a part replaced, or left out where the value is ``...``."""
    message: dict[str, Any] = copy.deepcopy(MESSAGE)
    *way, last = path
    inner = message
    for name in way:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return message


@pytest.mark.parametrize(
    "messages",
    [
        *(
            [changed((name,), value)]
            for name in ("MessageId", "ReceiptHandle", "Body")
            for value in (..., 7, None, {})
        ),
        *([changed((name,), "")] for name in ("MessageId", "ReceiptHandle")),
        *([changed(("Attributes",), value)] for value in (..., 7, [], "x", {})),
        *(
            [changed(("Attributes", name), value)]
            for name in MESSAGE["Attributes"]
            for value in (..., 7, "", None)
        ),
        *(
            [changed(("Attributes", name), value)]
            for name in ("ApproximateReceiveCount", "SentTimestamp")
            for value in ("-1", "1.5", "x", "\u0661", "9" * 5_000, "999999999999999")
        ),
        *([changed(("Attributes", "SenderId"), value)] for value in (7, [], {"a": "b"})),
        [MESSAGE, MESSAGE],
        [{**MESSAGE, "MessageId": id} for id in "abc"],
        *("x", 7, {"a": MESSAGE}, [None], ["x"], [[MESSAGE]]),
    ],
)
def test_message_that_sqs_would_not_give_is_an_outage(server: Server, messages: object) -> None:
    server.says("ReceiveMessage", {"Messages": messages})
    with pytest.raises(BrokerUnavailableError):
        receive(server)


@pytest.mark.parametrize(
    ("method", "result"),
    [
        *(
            ("depth", {"Attributes": {**COUNTS, name: value}})
            for name in COUNTS
            for value in ("", "x", "-1", 3, None)
        ),
        *(("depth", result) for result in ({}, {"Attributes": {}}, {"Attributes": []}, {"Attributes": "x"})),
        *(("depth", {"Attributes": {key: COUNTS[key] for key in COUNTS if key != name}}) for name in COUNTS),
        ("message_bytes", {"Attributes": {"MaximumMessageSize": "much"}}),
        *(("names", {"QueueUrls": urls}) for urls in ("x", [7], {"a": "b"}, [None])),
        ("names", {"NextToken": 7}),
        ("names", {"QueueUrls": [], "NextToken": "the same again"}),
        *(("tags", {"Tags": tags}) for tags in ("x", [], {"a": 7}, {"a": {"b": "c"}}, 7)),
        *(
            ("queue_url", {"QueueUrl": url})
            for url in ("", 7, "x", "http://x/0/other.fifo", ["http://x/0/q1.fifo"])
        ),
        *(("queue_url", result) for result in ({}, {"QueueUrls": []})),
    ],
)
def test_result_of_another_type_is_an_outage(server: Server, method: str, result: object) -> None:
    action, ask, _ = METHODS[method]
    server.says(action, result)
    with pytest.raises(BrokerUnavailableError):
        ask(server)


@pytest.mark.parametrize("result", [{}, {"QueueUrl": "http://x/0/other.fifo"}, {"QueueUrl": 7}])
def test_queue_is_not_made_where_another_one_is_named(server: Server, result: object) -> None:
    server.says("CreateQueue", result)
    server.steps["GetQueueUrl"] = reply(b'{"__type": "QueueDoesNotExist", "message": "m"}', "400 Bad Request")
    with pytest.raises(BrokerUnavailableError):
        server.broker.declare([QueueSpec(server.new_queue())])


@pytest.mark.parametrize("policy", ["{", "[]", "7", "[" * 100_000, "null"])
def test_policy_that_cannot_be_read_is_another_one(
    server: Server, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.says("GetQueueAttributes", {"Attributes": {"QueueArn": "a:b", "RedrivePolicy": policy}})
    spec = QueueSpec(server.new_queue(), dead_letters="dead.fifo", attributes={"Policy": "no JSON"})
    server.broker.declare([spec])
    assert "deadLetterTargetArn is None" in caplog.text


# What the error tells


def told(server: Server, body: bytes, status: str = "200 OK") -> str:
    server.steps = {"ReceiveMessage": reply(body, status)}
    with pytest.raises(BrokerUnavailableError) as caught:
        receive(server)
    # With what it was raised from, as a log shows it.
    causes = [caught.value.__cause__, getattr(caught.value.__cause__, "__cause__", None)]
    return " ".join(map(str, [caught.value, *causes]))


@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden", "502 Bad Gateway"])
def test_error_shows_the_begin_of_a_page(server: Server, status: str) -> None:
    text = told(server, PAGE + b"." * 5_000, status)
    assert "Sign in to the network" in text
    assert status[:3] in text
    assert len(text) < 600


def test_error_shows_no_control_characters(server: Server) -> None:
    assert told(server, b"<html>\x1b[2J\r\n\x00\xff").isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b'{"Messages": [{"MessageId": "m", "Body": "HIDDEN',
        b'{"Messages": [{"MessageId": "m", "Body": ["HIDDEN"]}]}',
        b'{"Messages": "HIDDEN"}',
        b'{"status": "HIDDEN"}',
        b'[{"Body": "HIDDEN"}]',
        b'cannot parse {"Entries": [{"MessageBody": "HIDDEN"',
        b"<pre>X-Amz-Security-Token: HIDDEN",
        b"<pre>Authorization: AWS4-HMAC-SHA256 HIDDEN",
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "403 Forbidden"])
def test_error_shows_neither_messages_nor_secrets(server: Server, body: bytes, status: str) -> None:
    assert "HIDDEN" not in told(server, body, status)


def test_refusal_of_sqs_is_none_of_a_proxy(server: Server) -> None:
    server.says("ReceiveMessage", {"__type": "AccessDenied", "message": "m"}, "403 Forbidden")
    with pytest.raises(CredentialsError):
        receive(server)


# Whatever comes

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["0", "1", "g"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def bodies(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """An answer of SQS in which something was changed: a part of it, or some of its bytes."""
    result = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 2))):
        part: Any = result
        while isinstance(part, dict | list) and part:
            key = draw(st.sampled_from(list(part) if isinstance(part, dict) else range(len(part))))
            if not isinstance(part[key], dict | list) or not part[key] or draw(st.booleans()):
                part[key] = draw(JSON)
                if draw(st.booleans()):
                    del part[key]
                break
            part = part[key]
    body = json.dumps(result).encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]
    return body


def fits(method: str, result: Any) -> bool:
    """Whether a method returned what it promises."""
    if method in ("send", "ack", "extend"):
        return [type(each) for each in result] == [Answer, Answer]
    if method == "receive":
        texts = [text for each in result for text in (each.id, each.receipt, each.body, each.group)]
        numbers = [number for each in result for number in (each.receives, each.sent)]
        return all(isinstance(text, str) for text in texts) and all(0 <= number < 1e12 for number in numbers)
    if method == "depth":
        return isinstance(result, Depth) and min(result.waiting, result.in_flight) >= 0
    if method == "tags":
        return all(isinstance(text, str) for pair in result.items() for text in pair)
    return isinstance(result, list) and all(isinstance(name, str) for name in result)


@pytest.mark.parametrize("method", ["send", "ack", "extend", "receive", "depth", "names", "tags"])
@given(data=st.data())
def test_every_answer_is_right_or_an_outage(server: Server, method: str, data: st.DataObject) -> None:
    action, ask, good = METHODS[method]
    server.steps = {action: reply(data.draw(bodies(good)))}
    try:
        result = ask(server)
    except BrokerUnavailableError:
        return
    assert fits(method, result)


@given(data=st.data())
def test_every_error_is_one_of_the_tree(server: Server, data: st.DataObject) -> None:
    status = data.draw(st.sampled_from(["400 Bad Request", "403 Forbidden", "500 Broken", "302 Found"]))
    body = data.draw(bodies({"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "m"}))
    query = data.draw(
        st.sampled_from(["", "x-amzn-query-error: AWS.X.NonExistentQueue;Sender", "x-amzn-query-error: ;"])
    )
    server.steps = {"ReceiveMessage": reply(body, status, *filter(None, [query]))}
    with pytest.raises(BrokerError):
        receive(server)
