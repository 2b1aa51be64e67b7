"""Scenario 2: the network fails requests, delays them, and loses what the server has answered."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sqspipes import TaskClient
from tests.chaos.conftest import Chaos, MakePipe, Pipe
from tests.chaos.fleet import Worker
from tests.chaos.ledger import wait_for
from tests.chaos.weather import Weather
from tests.servers import Forward, Reply, Request

#: The longest lease there is: a message that waits for its end comes too late for every deadline here.
LONG_LEASE = 240.0

#: Messages that may be under way while more are put.
UNDER_WAY = 40

SEND, RECEIVE = "SendMessageBatch", "ReceiveMessage"
DELETE, EXTEND = "DeleteMessageBatch", "ChangeMessageVisibilityBatch"


class Losses:
    """Loses answers of some actions, whole or half: of each the first one, then by seeded chance.

    A receive's is lost only if it has messages.
    """

    def __init__(self, chance: random.Random, part: float, *actions: str) -> None:
        self._chance, self._part, self._actions = chance, part, actions
        self._lock = threading.Lock()
        self.lost: list[Request] = []

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        reply = forward(request)
        empty = request.action == RECEIVE and not reply.json.get("Messages")
        with self._lock:
            if request.action not in self._actions or empty:
                return reply
            if self.counts()[request.action] and self._chance.random() >= self._part:
                return reply
            self.lost.append(request)
            half = self._chance.random() < 0.5
        return replace(reply, sent=0.5) if half else None

    def counts(self) -> Counter[str]:
        """How many answers of each action were lost."""
        return Counter(request.action for request in self.lost)


def entries(request: Request) -> Iterator[tuple[str, ...]]:
    """What a request asks for: of a receive its attempt and all its settings, of a batch each entry's key."""
    asked = request.json
    queue = asked.get("QueueUrl", "")
    if request.action == RECEIVE:
        yield queue, asked["ReceiveRequestAttemptId"], str(asked["MaxNumberOfMessages"])
    for entry in asked.get("Entries", ()):
        yield request.action, queue, entry.get("MessageDeduplicationId") or entry["ReceiptHandle"]


def assert_asked_again(pipe: Pipe, lost: list[Request]) -> None:
    """Check that everything in a request without an answer was asked for once more."""
    assert pipe.proxy is not None
    times = Counter(key for request in pipe.proxy.requests() for key in entries(request))
    lost_times = Counter(key for request in lost for key in entries(request))
    missing = [key for key, count in lost_times.items() if times[key] <= count]
    assert not missing


def feed(pipe: Pipe, seconds: float, enough: Callable[[], bool]) -> None:
    """Put messages through the same weather, a few more whenever some are done: so long, and until it is enough."""
    deadline = time.monotonic() + seconds
    with contextlib.closing(TaskClient(pipe.domain, **pipe.arguments)) as client:
        client.register_tasks([{"name": "one"}])
        while time.monotonic() < deadline or not enough():
            pipe.ledger.feed(groups=20, each=2, client=client)
            wait_for(
                lambda: pipe.ledger.messages - pipe.ledger.done() < UNDER_WAY,
                60,
                lambda: f"{pipe.ledger.done()} of {pipe.ledger.messages} done\n{pipe.fleet.log[-3000:]}",
            )


@pytest.mark.a_minute
@pytest.mark.timeout(300)
def test_a_tenth_of_all_requests_fails_and_nothing_is_lost(
    chaos: Chaos, make_pipe: MakePipe, transport: str
) -> None:
    pipe = make_pipe("sqs", options={"lease": LONG_LEASE, "transport": transport}, seconds=0.01)
    workers = [pipe.fleet.start() for _ in range(2)]
    for worker in workers:
        worker.said("runs on")
    weather = Weather(chaos.random, 0.1)
    pipe.weather(weather)
    least = 200 if chaos.full else 10
    feed(pipe, 60 if chaos.full else 2, lambda: weather.faults.total() >= least)
    pipe.weather(None)
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    chaos.settled(
        f"2 network: weather, {transport}", "sqs", pipe, faults=weather.faults.total(), seconds=seconds
    )
    # No lease was lost and none was waited for: each call happened once, and in time.
    assert pipe.ledger.repeated() == 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Lose the answers of each action by itself in the whole round, of all of them in the short one."""
    if "actions" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--full")
        each = [(SEND,), (RECEIVE,), (DELETE,), (EXTEND,)] if whole else [(SEND, RECEIVE, DELETE)]
        metafunc.parametrize("actions", each, ids="+".join)


@pytest.mark.timeout(180)
def test_lost_answers_are_asked_for_again_and_cost_no_lease(
    chaos: Chaos, make_pipe: MakePipe, transport: str, actions: tuple[str, ...]
) -> None:
    extends = EXTEND in actions
    options = {"lease": 5.0 if extends else LONG_LEASE, "transport": transport}
    pipe = make_pipe("sqs", options=options, workers=20)
    losses = Losses(chaos.random, 0.3, *actions)
    pipe.weather(losses)
    pipe.ledger.feed(groups=20, each=3 if extends else 15 if chaos.full else 5)
    # Calls that are longer than half a lease have it extended.
    pipe.fleet.start(tasks=["one"], seconds=3.0 if extends else 0.0)
    pipe.fleet.start(tasks=["two", "three"])
    for worker in pipe.fleet.workers:
        worker.said("runs on")
    recovered = pipe.ledger.settle(60)
    pipe.fleet.end()
    lost = losses.counts()
    title = f"2 network: lost answers of {' '.join(actions)}, {transport}"
    chaos.settled(title, "sqs", pipe, faults=len(losses.lost), seconds=recovered)
    assert set(lost) == set(actions)
    assert_asked_again(pipe, losses.lost)
    assert pipe.replays.replayed >= lost[RECEIVE]
    assert pipe.ledger.repeated() == 0


class LostUntilStopped:
    """Loses what one worker receives, time after time, and stops it in the middle of that, between two tries."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.worker: Worker | None = None
        self.lost = 0

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        reply = forward(request)
        if request.action != RECEIVE or not reply.json.get("Messages") or self._stopped.is_set():
            return reply
        with self._lock:
            self.lost += 1
            if self.lost == 6:  # by now the pauses are long
                threading.Timer(0.1, self._stop).start()
        return replace(reply, sent=0.5)

    def _stop(self) -> None:
        self._stopped.set()
        assert self.worker is not None
        self.worker.send(self._number)


@pytest.mark.whole_round
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stop_while_a_lost_receive_is_repeated_leaves_nothing_hidden(
    chaos: Chaos, make_pipe: MakePipe, number: signal.Signals
) -> None:
    pipe = make_pipe("sqs", options={"lease": LONG_LEASE})
    losses = LostUntilStopped(number)
    pipe.weather(losses)
    pipe.ledger.feed(groups=1, each=30 if chaos.full else 10)
    losses.worker = pipe.fleet.start(tasks=["one"])
    losses.worker.end()
    assert losses.lost >= 6, losses.worker.log
    pipe.fleet.start()
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    title = f"2 network: {number.name} while a receive is lost"
    chaos.settled(title, "sqs", pipe, faults=losses.lost, seconds=seconds)
