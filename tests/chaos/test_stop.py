"""Scenario 6: it stops when told, under load and again and again, and nothing stays hidden."""

from __future__ import annotations

import signal
import threading

import pytest

from tests.chaos.conftest import Chaos, MakePipe
from tests.chaos.ledger import wait_for
from tests.chaos.stops import LEASE, busy, ended, hidden, settle
from tests.servers import Forward, Reply, Request

BROKERS = pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])


@pytest.mark.every_broker
@pytest.mark.timeout(240)
@BROKERS
def test_sigterm_under_load_lets_no_message_wait_for_a_lease(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, seconds=0.02, options={"lease": LEASE})
    rounds = 10 if chaos.full else 2
    pipe.ledger.feed(groups=300, each=rounds)
    stops = []
    for _ in range(rounds):
        worker = pipe.fleet.start()
        busy(pipe, worker, chaos.random.randrange(50, 250))
        stops.append(ended(pipe, worker, signal.SIGTERM))
    seconds = settle(pipe)
    print(f"stops took {stops} s")
    chaos.settled("6 stop: SIGTERM under load", broker_name, pipe, faults=rounds, seconds=seconds)


@pytest.mark.alone
@pytest.mark.whole_round
@pytest.mark.timeout(240)
@BROKERS
def test_second_sigterm_ends_the_process_within_a_second(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, seconds=60.0, options={"lease": 5.0})
    rounds = 3 if chaos.full else 1
    pipe.ledger.feed(groups=100, each=1)
    for _ in range(rounds):
        worker = pipe.fleet.start()
        busy(pipe, worker, 4)
        worker.send(signal.SIGTERM)
        wait_for(lambda: hidden(pipe) == {"one": 4}, 10, lambda: f"{hidden(pipe)} besides four calls")
        took = ended(pipe, worker, signal.SIGTERM, running=4)
        assert took < 1
    seconds = settle(pipe)
    chaos.settled("6 stop: second SIGTERM", broker_name, pipe, faults=2 * rounds, seconds=seconds)


@pytest.mark.timeout(240)
def test_sigint_during_open_polls_gives_back_what_they_took(chaos: Chaos, make_pipe: MakePipe) -> None:
    pipe = make_pipe("sqs", options={"lease": LEASE}, tasks=["one"])
    assert pipe.proxy is not None
    pipe.replays.grace = 4.0  # a machine that is busy may take its time to feed
    polls = Polls()
    rounds = 5 if chaos.full else 1
    for number in range(2 * rounds):
        pipe.weather(polls.begin())
        worker = pipe.fleet.start()
        assert polls.open.wait(30)
        if number % 2:  # the server's side of the poll takes it after the cut
            worker.send(signal.SIGINT)
            assert polls.asked_back.wait(10)
            pipe.ledger.feed(groups=10, each=1)
        else:  # the answer is on its way
            pipe.ledger.feed(groups=10, each=1)
            assert polls.answered.wait(10)
            worker.send(signal.SIGINT)
        assert ended(pipe, worker) < 5
        assert polls.asked_back.is_set()
    pipe.weather(None)
    pipe.fleet.settings["tasks"] = ["one", "two", "three"]
    seconds = settle(pipe)
    assert pipe.replays.replayed >= 2 * rounds
    chaos.settled("6 stop: SIGINT, polls cut", "sqs", pipe, faults=2 * rounds, seconds=seconds)


class Polls:
    """Keeps back the answer of a poll until it is asked for again with the same attempt id, after the cut."""

    def begin(self) -> Polls:
        self.open, self.answered, self.asked_back = threading.Event(), threading.Event(), threading.Event()
        self.attempt = ""
        return self

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        if request.action != "ReceiveMessage":
            return forward(request)
        attempt = request.json["ReceiveRequestAttemptId"]
        if attempt == self.attempt:
            self.asked_back.set()
            return forward(request)
        self.attempt = attempt
        self.open.set()
        reply = forward(request)
        self.answered.set()
        assert self.asked_back.wait(30)
        return reply


@pytest.mark.timeout(240)
@BROKERS
def test_stop_from_a_thread_and_from_a_task_hides_nothing(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, seconds=0.01, options={"lease": LEASE})
    ways = ["in_a_task", "in_a_thread"] * (5 if chaos.full else 1)
    pipe.ledger.feed(groups=100, each=len(ways))
    pipe.fleet.start("leaver.py", ways=ways).end(120)
    assert pipe.fleet.log.count("left by in_a_t") == len(ways)
    seconds = settle(pipe)
    chaos.settled("6 stop: stop() from anywhere", broker_name, pipe, faults=len(ways), seconds=seconds)


@pytest.mark.timeout(240)
@BROKERS
def test_two_clients_of_a_process_stop_each_for_itself_and_both_by_a_signal(
    chaos: Chaos, make_pipe: MakePipe, broker_name: str
) -> None:
    pipe = make_pipe(broker_name, seconds=0.01, options={"lease": LEASE})
    rounds = 8 if chaos.full else 2
    # More groups than a run holds that nobody reads, a hundred results and 254 messages: the other one gets some.
    pipe.ledger.feed(groups=400, each=2 + rounds)
    twins = pipe.fleet.start("twins.py", rounds=rounds)
    twins.said("both are read", 120)
    ended(pipe, twins, signal.SIGTERM)
    assert twins.log.count("the other went on") == rounds
    assert "one ended" in twins.log and "other ended" in twins.log
    seconds = settle(pipe)
    chaos.settled("6 stop: two clients", broker_name, pipe, faults=rounds + 1, seconds=seconds)
