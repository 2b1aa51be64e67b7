"""The exchange over each broker: answers come in the engine's turn, polls hold up nothing, and a poll can be cut."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sqspipes.brokers.adapter import open_exchange
from sqspipes.brokers.base import Broker, Entry, Kind
from sqspipes.brokers.exchange import Ack, Extend, Receive, Request, Send, Ticket
from sqspipes.engine.loop import EngineLoop
from sqspipes.errors import QueueMissingError
from sqspipes.testing.broker_contract.steps import PATIENCE, bodies, kinds, made, moment, put, take
from tests.conftest import BROKERS


class Engine:
    """A loop with an exchange; ``came`` has what came of each request, in the order in which it was told."""

    def __init__(self, broker: Broker) -> None:
        self.loop = EngineLoop()
        self.exchange = open_exchange(broker, self.loop, "test")
        self.came: list[tuple[Request, Any]] = []
        self.open = 0

    def submit(self, request: Request) -> Ticket:
        """Begin a request."""
        self.open += 1
        return self.exchange.submit(request, lambda came: self._came(request, came))

    def _came(self, request: Request, came: Any) -> None:
        self.open -= 1
        self.came.append((request, came))

    def run(self, until: Callable[[], bool]) -> None:
        """Run turns until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            self.loop.turn(0.5)
            assert time.monotonic() < deadline, self.came

    def result(self, request: Request) -> Any:
        """Make a request and return what came of it."""
        self.submit(request)
        self.run(lambda: any(one is request for one, _ in self.came))
        return next(came for one, came in self.came if one is request)

    def end(self) -> None:
        """Close, and wait for what is under way."""
        self.exchange.close()
        self.run(lambda: not self.open)
        self.loop.close()


@pytest.fixture(params=(*BROKERS, "sqs_boto3"))
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker in turn, and SQS by boto3: then its exchange is one of threads."""
    name: str = request.param
    return name


@pytest.fixture
def engine(broker: Broker) -> Iterator[Engine]:
    engine = Engine(broker)
    yield engine
    engine.end()


def receive(queue: str, wait: float = 0.0, count: int = 10) -> Receive:
    return Receive(queue, count, wait, 30.0, uuid.uuid4().hex)


def test_requests_do_what_the_broker_does(broker: Broker, engine: Engine, domain: str) -> None:
    (queue,) = made(broker, domain)
    answers = engine.result(Send(queue, [Entry("a", "g-a", "1"), Entry("b", "g-b", "2")]))
    assert kinds(answers) == [Kind.OK] * 2
    found = engine.result(receive(queue, wait=PATIENCE))
    found += [] if len(found) == 2 else engine.result(receive(queue, wait=PATIENCE))
    assert sorted(bodies(found)) == ["a", "b"]
    first, second = found
    assert kinds(engine.result(Ack(queue, [first.receipt]))) == [Kind.OK]
    assert kinds(engine.result(Extend(queue, [(second.receipt, 0.0)]))) == [Kind.OK]
    assert bodies(engine.result(receive(queue, wait=PATIENCE))) == [second.body]


def test_nothing_is_told_before_the_next_turn(broker: Broker, engine: Engine, domain: str) -> None:
    (queue,) = made(broker, domain)
    engine.result(Send(queue, [Entry("a", "g-a", "1")]))  # from here on the queue is known
    engine.submit(Send(queue, [Entry("b", "g-b", "2")]))
    for body in "ab":  # both were sent
        assert bodies(take(broker, queue, 1, wait=PATIENCE)) == [body]
    assert len(engine.came) == 1
    engine.run(lambda: len(engine.came) == 2)


def test_error_of_the_broker_is_what_came(broker: Broker, engine: Engine, domain: str) -> None:
    came = engine.result(Send(f"{domain}--nowhere.fifo", [Entry("a", "g", "1")]))
    assert isinstance(came, QueueMissingError)


def test_open_polls_hold_up_no_other_request(broker: Broker, engine: Engine, domain: str) -> None:
    queues = made(broker, domain, *(f"t{number}" for number in range(16)))
    polls = [receive(queue, wait=20.0) for queue in queues]
    for poll in polls:
        engine.submit(poll)
    for number in range(12):
        assert kinds(engine.result(Send(queues[3], [Entry(str(number), "g", str(number))]))) == [Kind.OK]
    engine.run(lambda: any(one is polls[3] for one, _ in engine.came))
    assert {one.queue for one, _ in engine.came if isinstance(one, Receive)} == {queues[3]}


def test_poll_that_is_cut_ends_and_the_others_stay_open(broker: Broker, engine: Engine, domain: str) -> None:
    one, other = made(broker, domain, "one", "other")
    first = receive(one, wait=20.0)
    # By boto3 all polls are cut, and the server's part of one may take a message for its lease once.
    second = Receive(other, 10, 20.0, moment(broker), uuid.uuid4().hex)
    ticket = engine.submit(first)
    engine.submit(second)
    began = time.monotonic()
    ticket.cut()
    ticket.cut()
    engine.run(lambda: any(request is first for request, _ in engine.came))
    assert time.monotonic() - began < 10
    assert engine.came == [(first, [])]
    put(broker, other, "a")
    engine.run(lambda: len(engine.came) == 2)
    assert bodies(engine.came[1][1]) == ["a"]


def test_poll_that_is_cut_loses_no_message(broker: Broker, engine: Engine, domain: str) -> None:
    (queue,) = made(broker, domain)
    # On SQS the server goes on with polls that were cut, and each of them may take the message once.
    for number in range(5 if broker.limits.clean_interrupt else 1):
        poll = Receive(queue, 10, 20.0, moment(broker), uuid.uuid4().hex)
        ticket = engine.submit(poll)
        engine.loop.tell(ticket.cut)
        engine.run(lambda poll=poll: any(one is poll for one, _ in engine.came))  # type: ignore[misc]
        put(broker, queue, f"after-{number}")
        assert bodies(take(broker, queue, 1, wait=10.0)) == [f"after-{number}"]


def test_closed_exchange_takes_nothing_more_and_tells_of_all(
    broker: Broker, engine: Engine, domain: str
) -> None:
    queues = made(broker, domain, "one", "other")
    for queue in queues:
        engine.submit(receive(queue, wait=20.0))
        engine.submit(Send(queue, [Entry("a", "g", "1")]))
    engine.exchange.close()
    engine.run(lambda: len(engine.came) == 4)
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(receive(queues[0]))
    engine.open = 0


def test_threads_of_an_exchange_end_with_it(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    engine = Engine(broker)
    engine.submit(receive(queue, wait=20.0))
    engine.submit(receive(queue))
    engine.end()
    deadline = time.monotonic() + PATIENCE
    while any(thread.name.startswith("test ") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, threading.enumerate()
        threading.Event().wait(0.01)
