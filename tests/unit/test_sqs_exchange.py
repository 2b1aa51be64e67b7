"""The exchange of SQS: what only it does, against a server that a test wrote down; the rest is the contract's."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.credentials import RefreshableCredentials

from sqspipes.brokers.adapter import open_exchange
from sqspipes.brokers.base import Depth, Entry, Kind
from sqspipes.brokers.exchange import Ack, Count, Exchange, Extend, Receive, Request, Send, Ticket
from sqspipes.brokers.sqs.broker import SqsBroker
from sqspipes.brokers.sqs.exchange import SqsExchange
from sqspipes.brokers.sqs.quota import LEAST
from sqspipes.engine.loop import EngineLoop
from sqspipes.errors import BrokerUnavailableError, CredentialsError, QueueMissingError
from tests.scripted import Answering, Step, cut, reply

PATIENCE = 10.0
QUEUE = "q.fifo"
MESSAGE = {
    "MessageId": "m",
    "ReceiptHandle": "r",
    "Body": "b",
    "Attributes": {"ApproximateReceiveCount": "1", "MessageGroupId": "g", "SentTimestamp": "1700000000000"},
}


def says(result: Any) -> Step:
    return reply(json.dumps(result).encode())


def refuses(code: str, status: str = "400 Bad Request", *headers: str) -> Step:
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "no"}).encode()
    return reply(body, status, f"x-amzn-query-error: {code};Sender", *headers)


class Turns:
    """Steps that are taken one after the other; the last one again and again."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)

    def __call__(self, connection: Any) -> None:
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        step(connection)


class Pipe:
    """An exchange, its loop and the server."""

    def __init__(self, **options: Any) -> None:
        self.server = Answering()
        arguments = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2", **options}
        self.broker = SqsBroker(endpoint_url=self.server.url, **arguments)
        self.loop = EngineLoop()
        self.exchange: Exchange = open_exchange(self.broker, self.loop, "test")

    def begin(self, request: Request) -> tuple[Ticket, list[Any]]:
        """Begin a request; return its ticket, and where its reply will be."""
        came: list[Any] = []
        return self.exchange.submit(request, came.append), came

    def wait(self, until: Callable[[], Any]) -> None:
        """Run turns until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            self.loop.turn(0.05)
            assert self.loop.errors == []
            assert time.monotonic() < deadline, self.server.asked

    def result(self, request: Request) -> Any:
        """Make a request and return what came."""
        _, came = self.begin(request)
        self.wait(lambda: came)
        return came[0]

    def asked(self, action: str) -> list[dict[str, Any]]:
        """Return the parameters of the requests of one kind so far."""
        return [params for each, params in self.server.asked if each == action]

    def close(self) -> None:
        """Close everything."""
        self.exchange.close()
        self.server.close()
        self.broker.close()
        self.loop.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with contextlib.closing(Pipe()) as pipe:
        assert isinstance(pipe.exchange, SqsExchange)
        yield pipe


def receive(wait: float = 20.0, attempt: str = "attempt") -> Receive:
    return Receive(QUEUE, 10, wait, 30.0, attempt)


SEND = Send(QUEUE, [Entry("one", "g", "1"), Entry("two", "h", "2")])


def test_requests_are_those_of_the_broker(pipe: Pipe) -> None:
    done = {"Successful": [{"Id": "0"}], "Failed": [{"Id": "1", "Code": "ReceiptHandleIsInvalid"}]}
    for action in ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        pipe.server.steps[action] = says(done)
    pipe.server.steps["ReceiveMessage"] = says({"Messages": [MESSAGE]})
    requests: list[tuple[Request, Callable[[], Any]]] = [
        (Ack(QUEUE, ["r", "s"]), lambda: pipe.broker.ack(QUEUE, ["r", "s"])),
        (
            Extend(QUEUE, [("r", 1.5), ("s", 9.0)]),
            lambda: pipe.broker.extend(QUEUE, [("r", 1.5), ("s", 9.0)]),
        ),
        (
            receive(),
            lambda: pipe.broker.receive(QUEUE, count=10, wait=20.0, lease=30.0, attempt="attempt"),
        ),
    ]
    for request, call in requests:
        assert pipe.result(request) == call()
        (action, ours), (other, theirs) = pipe.server.asked[-2:]
        assert (action, ours) == (other, theirs)


def test_queue_is_asked_for_once_however_many_requests_wait(pipe: Pipe) -> None:
    pipe.server.steps["DeleteMessageBatch"] = says({"Successful": [{"Id": "0"}]})
    came = [pipe.begin(Ack(QUEUE, [str(number)]))[1] for number in range(5)]
    pipe.wait(lambda: all(came))
    assert len(pipe.asked("GetQueueUrl")) == 1
    assert [[answer.kind for answer in answers] for (answers,) in came] == [[Kind.OK]] * 5


@pytest.mark.parametrize(
    "step",
    [
        reply(b"<html>"),
        reply(b'{"Successful": 7}'),
        reply(b"", "503 Service Unavailable"),
        refuses("ThrottlingException"),
        refuses("InternalFailure", "500 Internal Server Error"),
        cut,
    ],
)
def test_what_may_pass_is_an_outage(pipe: Pipe, step: Step) -> None:
    pipe.server.steps["DeleteMessageBatch"] = step
    assert isinstance(pipe.result(Ack(QUEUE, ["r"])), BrokerUnavailableError)


def test_what_is_throttled_waits_the_next_time(pipe: Pipe) -> None:
    pipe.server.steps["DeleteMessageBatch"] = Turns(
        refuses("RequestThrottled"), says({"Successful": [{"Id": "0"}]})
    )
    assert isinstance(pipe.result(Ack(QUEUE, ["r"])), BrokerUnavailableError)
    began = time.monotonic()
    came = [pipe.begin(Ack(QUEUE, ["r"]))[1] for _ in range(3)]
    pipe.wait(lambda: all(came))
    # One went through in the last second: five a second are tried, and the first of them at once.
    assert time.monotonic() - began >= 1.5 / LEAST


def test_right_that_is_missing_is_named(pipe: Pipe) -> None:
    pipe.server.steps["DeleteMessageBatch"] = refuses("AccessDenied", "403 Forbidden")
    error = pipe.result(Ack(QUEUE, ["r"]))
    assert isinstance(error, CredentialsError)
    assert "sqs:DeleteMessage" in str(error)


def test_queue_that_is_missing_is_asked_for_again(pipe: Pipe) -> None:
    pipe.server.steps["DeleteMessageBatch"] = Turns(
        refuses("AWS.SimpleQueueService.NonExistentQueue"), says({"Successful": [{"Id": "0"}]})
    )
    assert isinstance(pipe.result(Ack(QUEUE, ["r"])), QueueMissingError)
    assert pipe.result(Ack(QUEUE, ["r"]))[0].kind is Kind.OK
    assert len(pipe.asked("GetQueueUrl")) == 2


def test_counts_are_a_depth(pipe: Pipe) -> None:
    names = ("", "Delayed", "NotVisible")
    counts = {f"ApproximateNumberOfMessages{name}": str(number) for number, name in enumerate(names, 1)}
    pipe.server.steps["GetQueueAttributes"] = says({"Attributes": counts})
    assert pipe.result(Count(QUEUE)) == Depth(3, 3)


def test_batch_that_is_too_long_is_split(pipe: Pipe) -> None:
    pipe.server.steps["SendMessageBatch"] = Turns(
        refuses("BatchRequestTooLong"),
        refuses("BatchRequestTooLong"),
        says({"Successful": [{"Id": "0"}]}),
    )
    assert [answer.kind for answer in pipe.result(SEND)] == [Kind.OK, Kind.OK]
    assert [len(asked["Entries"]) for asked in pipe.asked("SendMessageBatch")] == [2, 2, 1, 1]


# Polls that are cut


class Poll:
    """A server's poll that goes on until the client has gone."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __call__(self, connection: Any) -> None:
        self.begun.set()
        with contextlib.suppress(OSError):
            connection.recv(1)
        raise OSError("the client has gone")


@pytest.mark.parametrize(
    ("again", "found"), [(says({"Messages": [MESSAGE]}), ["b"]), (refuses("InvalidParameterValue"), [])]
)
def test_poll_that_is_cut_asks_for_what_it_had_taken(pipe: Pipe, again: Step, found: list[str]) -> None:
    poll = Poll()
    pipe.server.steps["ReceiveMessage"] = Turns(poll, again)
    ticket, came = pipe.begin(receive())
    pipe.wait(poll.begun.is_set)
    ticket.cut()
    ticket.cut()
    pipe.wait(lambda: came)
    assert [delivery.body for delivery in came[0]] == found
    first, second = pipe.asked("ReceiveMessage")
    assert second == {**first, "WaitTimeSeconds": 0}


def test_poll_that_is_cut_before_it_went_takes_nothing(pipe: Pipe) -> None:
    ticket, came = pipe.begin(receive())
    ticket.cut()
    pipe.wait(lambda: came)
    assert came == [[]]
    assert pipe.asked("ReceiveMessage") == []


def test_cut_ends_no_receive_that_does_not_wait(pipe: Pipe) -> None:
    pipe.server.steps["ReceiveMessage"] = says({"Messages": [MESSAGE]})
    ticket, came = pipe.begin(receive(wait=0.0))
    ticket.cut()
    pipe.wait(lambda: came)
    assert [delivery.body for delivery in came[0]] == ["b"]


def test_attempt_that_sqs_refuses_is_made_anew(pipe: Pipe) -> None:
    pipe.server.steps["ReceiveMessage"] = Turns(
        refuses("InvalidParameterValue"), refuses("InvalidParameterValue"), says({"Messages": [MESSAGE]})
    )
    assert [delivery.body for delivery in pipe.result(receive())] == ["b"]
    *_, last = pipe.asked("ReceiveMessage")
    assert last["ReceiveRequestAttemptId"] != "attempt"


# Clocks and credentials


def test_clock_that_is_wrong_is_corrected_by_the_servers_refusal(pipe: Pipe) -> None:
    ahead = formatdate(time.time() + 1_200, usegmt=True)
    pipe.server.steps["DeleteMessageBatch"] = Turns(
        refuses("RequestExpired", "403 Forbidden", f"Date: {ahead}"), says({"Successful": [{"Id": "0"}]})
    )
    assert pipe.result(Ack(QUEUE, ["r"]))[0].kind is Kind.OK
    assert len(pipe.asked("DeleteMessageBatch")) == 2


class Renewed:
    """Credentials that are renewed when the test lets them be."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.asked = threading.Event()
        self.credentials = RefreshableCredentials("x", "x", "x", self._at(3_600), self._refresh, "test")

    @staticmethod
    def _at(seconds: float) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

    def _refresh(self) -> dict[str, Any]:
        self.asked.set()
        assert self.go_on.wait(PATIENCE)
        return {
            "access_key": "new",
            "secret_key": "x",
            "token": "x",
            "expiry_time": self._at(3_600).isoformat(),
        }

    def end_in(self, seconds: float) -> None:
        """Let the credentials end so soon."""
        self.credentials._expiry_time = self._at(seconds)

    def session(self) -> Any:
        """Return a session with them."""
        session = botocore.session.get_session()
        session._credentials = self.credentials  # type: ignore[attr-defined]
        return boto3.Session(botocore_session=session, region_name="us-west-2")


@pytest.fixture
def renewed() -> Renewed:
    return Renewed()


@pytest.fixture
def renewing(renewed: Renewed) -> Iterator[Pipe]:
    """An exchange whose credentials are renewed."""
    options = {"aws_key": None, "aws_secret": None, "session": renewed.session()}
    with contextlib.closing(Pipe(**options)) as pipe:
        pipe.server.steps["DeleteMessageBatch"] = says({"Successful": [{"Id": "0"}]})
        assert pipe.result(Ack(QUEUE, ["r"]))[0].kind is Kind.OK
        yield pipe


def test_turns_go_on_while_credentials_are_renewed_and_requests_wait_for_them(
    renewing: Pipe, renewed: Renewed
) -> None:
    renewed.end_in(60)
    came = [renewing.begin(Ack(QUEUE, ["r"]))[1] for _ in range(3)]
    renewing.wait(renewed.asked.is_set)
    done: list[int] = []
    renewing.loop.later(0.01, lambda: done.append(1))
    renewing.wait(lambda: done)
    assert came == [[], [], []]
    renewed.go_on.set()
    renewing.wait(lambda: all(came))
    assert len(renewing.asked("DeleteMessageBatch")) == 4


def test_requests_go_on_with_credentials_that_are_good_still(renewing: Pipe, renewed: Renewed) -> None:
    renewed.end_in(800)
    assert renewing.result(Ack(QUEUE, ["r"]))[0].kind is Kind.OK
    renewing.wait(renewed.asked.is_set)
    assert renewing.result(Ack(QUEUE, ["r"]))[0].kind is Kind.OK
    renewed.go_on.set()


def test_credentials_that_cannot_be_renewed_are_an_outage(renewing: Pipe, renewed: Renewed) -> None:
    renewed.end_in(60)

    def refused() -> dict[str, Any]:
        raise ValueError("no answer")

    renewed.credentials._refresh_using = refused
    assert isinstance(renewing.result(Ack(QUEUE, ["r"])), BrokerUnavailableError)


# Other ways


def test_boto3_and_other_classes_have_threads(pipe: Pipe) -> None:
    class Mine(SqsBroker):
        """A broker of somebody's own, whose methods do more."""

    class Around:
        """One that passes on what it does not have itself."""

        def __getattr__(self, name: str) -> Any:
            return getattr(pipe.broker, name)

    keys = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}
    for broker in (
        SqsBroker(endpoint_url=pipe.server.url, transport="boto3", **keys),
        Mine(endpoint_url=pipe.server.url, **keys),
        Around(),
    ):
        exchange = open_exchange(broker, pipe.loop, "test")  # type: ignore[arg-type]
        assert not isinstance(exchange, SqsExchange)
        exchange.close()
        broker.close()
