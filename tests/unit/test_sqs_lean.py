"""The lean transport sends what boto3 sends, returns and raises what boto3 does, and leaves to it what is unusual."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError

from sqspipes import TaskClient
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import OK, Entry, Kind
from sqspipes.brokers.sqs.account import Account
from sqspipes.brokers.sqs.calls import Calls
from sqspipes.brokers.sqs.lean.wire import ACTIONS
from sqspipes.defaults import TRANSPORTS
from sqspipes.errors import BrokerError, BrokerUnavailableError, OptionError
from sqspipes.testing.broker_contract.steps import PATIENCE, in_thread, made, put, take_all
from tests.conftest import MakeBroker
from tests.scripted import Answering, Scripted, Step, answer, cut, reply
from tests.servers import Proxy

PARAMS: dict[str, Any] = {"QueueUrl": "http://sqs/1/q.fifo"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "SendMessageBatch": {"Entries": [{"Id": "0", "MessageBody": "é\u20ac\\n", "MessageGroupId": "g"}]},
    "ReceiveMessage": {"MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["MessageGroupId"]},
    "DeleteMessageBatch": {"Entries": [{"Id": "0", "ReceiptHandle": "r"}]},
    "ChangeMessageVisibilityBatch": {"Entries": [{"Id": "0", "ReceiptHandle": "r", "VisibilityTimeout": 0}]},
    "GetQueueAttributes": {"AttributeNames": ["QueueArn", "MaximumMessageSize"]},
}

Serve = Callable[..., Scripted]
Connect = Callable[..., Calls]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve([reply()], [cut])`` starts a server with the script of each connection."""
    with contextlib.ExitStack() as stack:

        def start(*scripts: Sequence[Step], **options: Any) -> Scripted:
            server = Scripted(*scripts, **options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """``connect(server)`` makes the calls to it; all are closed after the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with contextlib.ExitStack() as stack:

        def connect(server: Scripted | str, transport: str = "lean", session: Any = None) -> Calls:
            url = server if isinstance(server, str) else f"http://127.0.0.1:{server.port}"
            key = None if session else "x"
            calls = Calls(Account(key, key, "us-west-2", url, session, transport))
            stack.callback(calls.close)
            return calls

        yield connect


def head(request: bytes) -> dict[str, str]:
    """Return a request's first line, under ``""``, and its headers."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return {"": first} | {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def content(request: bytes) -> Any:
    return json.loads(request.partition(b"\r\n\r\n")[2])


def by_boto3(request: bytes) -> bool:
    return b"amz-sdk-invocation-id" in request.lower()


# What is sent


@pytest.mark.parametrize("path", ["", "/", "/a/path", "/a//b/../c%20d"])
def test_requests_are_those_that_boto3_sends(serve: Serve, connect: Connect, path: str) -> None:
    told = b'{"Attributes":{"QueueArn":"arn:aws:sqs:us-west-2:1:q","MaximumMessageSize":"1024"}}'
    script = [reply(told if action == "GetQueueAttributes" else b"{}") for action in ACTIONS]
    server = serve(script, script)
    for transport in TRANSPORTS:
        calls = connect(f"http://127.0.0.1:{server.port}{path}", transport)
        for action in ACTIONS:
            calls.call(action, {**PARAMS, **EXAMPLES[action]})
    half = len(EXAMPLES)
    for lean, through_boto3 in zip(server.requests[:half], server.requests[half:], strict=True):
        ours, theirs = head(lean), head(through_boto3)
        assert theirs.pop("amz-sdk-invocation-id")
        assert theirs.pop("amz-sdk-request")
        for name in ("x-amz-date", "authorization", "content-length"):
            assert bool(ours.pop(name)) == bool(theirs.pop(name))
        assert ours == theirs
        assert content(lean) == content(through_boto3)


def test_refreshed_credentials_sign_the_next_request(serve: Serve, connect: Connect) -> None:
    numbers = itertools.count()
    now = datetime.now(UTC)

    def fetched() -> dict[str, str]:
        key, expires = f"key{next(numbers)}", now + timedelta(hours=1)
        token = {"token": f"token-{key}", "expiry_time": expires.isoformat()}
        return {"access_key": key, "secret_key": f"secret {key}", **token}

    first = {**fetched(), "expiry_time": now + timedelta(hours=1)}
    credentials = RefreshableCredentials(
        **first, refresh_using=fetched, method="test", time_fetcher=lambda: now
    )
    session = botocore.session.Session()
    session._credentials = credentials  # type: ignore[attr-defined]
    server = serve([reply(), reply()])
    calls = connect(server, session=boto3.Session(botocore_session=session, region_name="us-west-2"))
    calls.call("ReceiveMessage", PARAMS)
    now += timedelta(hours=1)
    calls.call("ReceiveMessage", PARAMS)
    keys = [re.findall(rb"Credential=(key\d+)/", request)[0] for request in server.requests]
    assert keys == [b"key0", b"key1"]
    for key, request in zip(keys, server.requests, strict=True):
        assert head(request)["x-amz-security-token"] == f"token-{key.decode()}"
        assert not by_boto3(request)


# What comes back


def test_answer_has_no_nulls(serve: Serve, connect: Connect) -> None:
    message = b'{"MessageId": "m", "ReceiptHandle": "r", "Body": "null", "Attributes": null}'
    server = serve([reply(b'{"Messages": [%b], "Failed": null}' % message)])
    result = connect(server).call("ReceiveMessage", PARAMS)
    assert result == {"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "null"}]}


ERRORS = [
    ("400 Bad Request", b'{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"m"}', ""),
    (
        "400 Bad Request",
        b'{"__type":"a#QueueDoesNotExist:http://x","Message":"m"}',
        "AWS.X.NonExistentQueue;Sender",
    ),
    ("400 Bad Request", b'{"__type":"InvalidMessageContents","message":"m"}', "no semicolon"),
    ("403 Forbidden", b'{"__type":"AccessDeniedException","Message":"m"}', "AccessDenied;Sender"),
    ("400 Bad Request", b"", "InvalidAddress;Sender"),
    ("503 Service Unavailable", b'{"__type":"ServiceUnavailable","message":"m"}', ""),
]


def test_errors_are_those_that_boto3_raises(serve: Serve, connect: Connect) -> None:
    steps = [
        reply(body, status, "x-amzn-RequestId: r", *([f"x-amzn-query-error: {query}"] if query else []))
        for status, body, query in ERRORS
    ]
    server = serve(steps, steps)
    told: dict[str, list[Any]] = {}
    for transport in TRANSPORTS:
        calls = connect(server, transport)
        told[transport] = [raised(calls) for _ in ERRORS]
    assert told["lean"] == told["boto3"]


def raised(calls: Calls) -> tuple[Any, ...]:
    """Return what the error of a call tells, but for the retries that boto3 counts."""
    with pytest.raises(BrokerError) as caught:
        calls.call("SendMessageBatch", PARAMS, queue="q")
    error = caught.value.__cause__
    assert isinstance(error, ClientError)
    metadata: Any = error.response["ResponseMetadata"]
    for name in ("RetryAttempts", "MaxAttemptsReached"):
        metadata.pop(name, None)
    return type(caught.value), str(caught.value), type(error).__name__, error.response


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("url", "script", "cause"),
    [
        ("http://127.0.0.1:9", [], "EndpointConnectionError"),
        ("http://nowhere.invalid", [], "EndpointConnectionError"),
        ("", [cut], "ConnectionClosedError"),
        ("", [answer(b"SSH-2.0\r\n\r\n")], "ConnectionClosedError"),
        ("", [lambda _: threading.Event().wait(2) and None], "ReadTimeoutError"),
    ],
)
def test_outage_is_the_one_that_boto3_tells(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
    url: str,
    script: Sequence[Step],
    cause: str,
) -> None:
    monkeypatch.setattr("sqspipes.brokers.sqs.calls.READ_TIMEOUT", 0.3)
    with pytest.raises(BrokerUnavailableError) as caught:
        connect(url or serve(script), transport).call("SendMessageBatch", PARAMS)
    assert type(caught.value.__cause__).__name__ == cause


# Connections


def test_request_on_a_connection_that_the_server_closed_is_repeated(serve: Serve, connect: Connect) -> None:
    server = serve([reply(), cut], [reply(b'{"Successful": []}')])
    calls = connect(server)
    calls.call("SendMessageBatch", PARAMS)
    assert calls.call("SendMessageBatch", PARAMS) == {"Successful": []}
    assert server.requests[1] == server.requests[2]


def test_request_is_repeated_once_only(serve: Serve, connect: Connect) -> None:
    server = serve([reply(), cut], [cut], [reply()])
    calls = connect(server)
    calls.call("SendMessageBatch", PARAMS)
    with pytest.raises(BrokerUnavailableError):
        calls.call("SendMessageBatch", PARAMS)
    assert len(server.requests) == 3


def test_request_is_not_repeated_when_its_answer_had_begun(serve: Serve, connect: Connect) -> None:
    server = serve([reply(), answer(b"HTTP/1.1 2")], [reply()])
    calls = connect(server)
    calls.call("SendMessageBatch", PARAMS)
    with pytest.raises(BrokerUnavailableError):
        calls.call("SendMessageBatch", PARAMS)
    assert len(server.requests) == 2


def late(step: Step) -> Step:
    """A step that is taken after a while."""

    def after_a_while(connection: Any) -> None:
        threading.Event().wait(0.6)
        step(connection)

    return after_a_while


def test_request_that_was_under_way_for_long_is_not_repeated(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqspipes.brokers.sqs.lean.exchange._STALE", 0.2)
    server = serve([reply(), late(cut)], [reply()])
    calls = connect(server)
    calls.call("SendMessageBatch", PARAMS)
    with pytest.raises(BrokerUnavailableError):
        calls.call("SendMessageBatch", PARAMS)
    assert len(server.requests) == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_poll_may_be_silent_for_longer_than_other_requests(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr("sqspipes.brokers.sqs.calls.READ_TIMEOUT", 0.2)
    server = serve([late(reply(b'{"Messages": []}'))])
    assert connect(server, transport).poll(PARAMS, queue="q")["Messages"] == []


def test_cut_poll_on_a_used_connection_is_not_repeated(serve: Serve, connect: Connect) -> None:
    arrived, over = threading.Event(), threading.Event()

    def hang(_: Any) -> None:
        arrived.set()
        over.wait(PATIENCE)

    server = serve([reply(), hang], [reply()])
    calls = connect(server)
    calls.call("SendMessageBatch", PARAMS)
    poll = in_thread(lambda: calls.poll(PARAMS, queue="q"))
    assert arrived.wait(PATIENCE)
    calls.interrupt()
    with pytest.raises(BrokerUnavailableError, match="interrupted"):
        poll.result(5)
    over.set()
    assert len(server.requests) == 2


def test_threads_share_no_connection_at_a_time(make_broker: MakeBroker, proxy: Proxy, domain: str) -> None:
    broker = make_broker("sqs", endpoint_url=proxy.url)
    (queue,) = made(broker, domain)
    put(broker, queue, "first")  # before it, boto3 asks for the queue's settings
    sends = [
        in_thread(lambda names=[f"{n}-{i}" for i in range(60)]: put(broker, queue, *names))  # type: ignore[misc]
        for n in range(6)
    ]
    for send in sends:
        send.result(PATIENCE)
    assert len({delivery.body for delivery in take_all(broker, queue, 361)}) == 361
    # One of them is boto3's.
    assert proxy.connections_made <= 7


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_late_bytes_are_not_the_answer_to_the_next_request(transport: str) -> None:
    done = reply(b'{"Successful": [{"Id": "0"}]}')
    connections: list[Any] = []
    server = Answering()

    def remembered(connection: Any) -> None:
        connections.append(connection)
        done(connection)

    failed = b'{"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": false}]}'
    server.steps = {"DeleteMessageBatch": remembered, "SendMessageBatch": reply(failed)}
    account = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}
    broker = open_broker("sqs://", **account, endpoint_url=server.url, transport=transport)
    with contextlib.closing(server), contextlib.closing(broker):
        assert broker.ack("q.fifo", ["r"]) == [OK]
        done(connections[0])
        assert [each.kind for each in broker.send("q.fifo", [Entry("a", "a", "a")])] == [Kind.AGAIN]


# The clock


def skewed(ahead: float, code: str) -> Step:
    body = json.dumps({"__type": code, "message": "Signature not yet current"}).encode()
    return reply(body, "403 Forbidden", f"Date: {formatdate(time.time() + ahead, usegmt=True)}")


@pytest.mark.parametrize("ahead", [3_600.0, -3_600.0])
@pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired"])
def test_wrong_clock_is_set_by_the_servers(serve: Serve, connect: Connect, ahead: float, code: str) -> None:
    server = serve([skewed(ahead, code), reply(), reply()])
    calls = connect(server)
    for _ in range(2):
        assert calls.call("ReceiveMessage", PARAMS) == {}
    now = time.time()
    signed = [head(request)["x-amz-date"] for request in server.requests]
    off = [datetime.strptime(f"{at}+0000", "%Y%m%dT%H%M%SZ%z").timestamp() - now for at in signed]
    assert off == pytest.approx([0, ahead, ahead], abs=30)


@pytest.mark.parametrize(
    "step",
    [
        skewed(30, "InvalidSignatureException"),
        skewed(3_600, "AccessDenied"),
        reply(b'{"__type":"RequestExpired"}', "403 Forbidden"),
        reply(b'{"__type":"RequestExpired"}', "403 Forbidden", "Date: yesterday"),
    ],
)
def test_right_clock_is_left_alone(serve: Serve, connect: Connect, step: Step) -> None:
    server = serve([step, reply()])
    with pytest.raises(BrokerError):
        connect(server).call("ReceiveMessage", PARAMS)
    assert len(server.requests) == 1


# What is left to boto3


def session_with(**config: Any) -> boto3.Session:
    session = botocore.session.Session()
    session.set_credentials("x", "x")
    session.set_default_client_config(Config(**config))
    return boto3.Session(botocore_session=session, region_name="us-west-2")


def listening(event: str) -> boto3.Session:
    session = session_with()
    session.events.register(event, lambda **_: None)
    return session


def naming_the_host(host: str = "") -> boto3.Session:
    """A session whose requests have the header Host before they are signed, as the signer of awscrt has it."""
    session = session_with()

    def name(request: Any, **_: Any) -> None:
        request.headers.add_header("Host", host or urlsplit(request.url).netloc)

    session.events.register("request-created.sqs", name)
    return session


def adding_a_header() -> boto3.Session:
    session = session_with()
    session.events.register(
        "request-created.sqs", lambda request, **_: request.headers.add_header("X-Trace", "1")
    )
    return session


@pytest.mark.parametrize(
    ("session", "ours"),
    [
        (session_with(), True),
        (listening("before-send.sqs.ReceiveMessage"), False),
        (naming_the_host(), True),
        (naming_the_host("another.example"), False),
        (adding_a_header(), False),
        (session_with(client_cert="/nowhere/cert.pem"), False),
        (session_with(signature_version=botocore.UNSIGNED), False),
    ],
)
def test_unusual_session_is_left_to_boto3_with_a_warning(
    serve: Serve, connect: Connect, session: Any, ours: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve([reply(), reply()])
    calls = connect(server, session=session)
    for _ in range(2):
        calls.call("ReceiveMessage", PARAMS)
    assert by_boto3(server.requests[0]) == (not ours)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [text[:35] for text in warnings] == ([] if ours else ["requests to SQS go through boto3, f"])


def test_request_that_cannot_be_learnt_is_left_to_boto3_with_a_warning(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sqspipes.brokers.sqs.lean.wire._read", lambda *_: {}["moved"])
    server = serve([reply()])
    connect(server).call("ReceiveMessage", PARAMS)
    assert by_boto3(server.requests[0])
    assert "requests to SQS go through boto3" in caplog.text


def test_signature_that_is_not_botocores_is_left_to_boto3(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqspipes.brokers.sqs.lean.wire.Signer.signed", lambda *_: "Authorization: other\r\n")
    server = serve([reply()])
    connect(server).call("ReceiveMessage", PARAMS)
    assert by_boto3(server.requests[0])


def test_proxy_is_left_to_boto3(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = serve([reply()]), serve([reply()], [reply()])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    connect(server).call("ReceiveMessage", PARAMS)
    assert not by_boto3(server.requests[0])
    connect("http://sqs.invalid").call("ReceiveMessage", PARAMS)
    monkeypatch.delenv("HTTP_PROXY")
    monkeypatch.delenv("NO_PROXY")
    proxies = {"http": f"http://127.0.0.1:{proxy.port}"}
    connect("http://sqs.invalid", session=session_with(proxies=proxies)).call("ReceiveMessage", PARAMS)
    for request in proxy.requests:
        assert request.startswith(b"POST http://sqs.invalid/ ")
        assert by_boto3(request)


def test_list_of_what_needs_no_proxy_is_no_proxy(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve([reply()])
    monkeypatch.setenv("NO_PROXY", "example.org")
    connect(server).call("ReceiveMessage", PARAMS)
    assert not by_boto3(server.requests[0])


@pytest.mark.parametrize("wrong", ["", "Lean", None, 3])
def test_transport_is_one_of_two(wrong: Any) -> None:
    for make in (
        lambda: open_broker("sqs://", transport=wrong),
        lambda: TaskClient("domain", broker="memory://", transport=wrong),
    ):
        with pytest.raises(OptionError, match=f"transport is {wrong!r}: allowed is 'lean' or 'boto3'"):
            make()
