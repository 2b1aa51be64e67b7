"""Dead letters in numbers: batch by batch, nothing twice, and what is not whole says so."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from benchmarks.running import Responder, responder
from sqspipes import Broker, BrokerError, DeadLetter, OptionError, TaskClient
from sqspipes.brokers.base import Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.cli.commands.dead import Box
from sqspipes.messages.message import Delivery
from sqspipes.operations import receiving
from tests.conftest import AWS, MakeBroker
from tests.integration.support import PATIENCE, levels, piped, until
from tests.servers import Forward, Proxy, Reply, Request, error, json_reply

MEMORY = {"broker": "memory://"}


def body(value: Any, **more: Any) -> str:
    """Return a message of ours, as the broker itself moves it to the dead letters."""
    return json.dumps({"sqspipes": 1, "id": f"id-{value}", "value": value, **more})


def bury(client: TaskClient, broker: Broker, bodies: Sequence[str], group: str | None = None) -> None:
    """Store dead letters of the client's first task, in one group or each in its own."""
    client.create_queues()
    queue = client.tasks[0].dead_queue
    for number, text in enumerate(bodies):
        (answer,) = broker.send(queue, [Entry(text, group or f"g{number}", f"key-{number}")])
        assert answer.kind.value == "ok", answer


def work(value: Any) -> None:
    """Do nothing."""


def received(broker: Broker, queue: str) -> Iterator[str]:
    """Take all messages of a queue, in order."""
    for number in itertools.count():
        wait = 0.0 if broker.limits.exact else 1.0
        batch = broker.receive(queue, count=10, wait=wait, lease=60, attempt=f"attempt-{number}")
        if not batch:
            return
        yield from (delivery.body for delivery in batch)
        broker.ack(queue, [delivery.receipt for delivery in batch])


# One group, as a broker's own policy moves it


def test_of_one_group_ten_letters_are_listed_and_more_are_told_of(
    domain: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(25)], "one")
        letters = client.dead_letters()
        assert letters.whole is False
        assert [letter.value for letter in letters] == list(range(10))
        assert letters.whole is False
        (missing,) = letters.missing
        assert "15 more wait behind" in missing
        assert "not all dead letters of work are listed" in caplog.text


def test_redrive_works_through_a_group_in_its_order(domain: str, broker: Broker) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number, group="one") for number in range(25)], "one")
        assert client.redrive() == 25
        found = [json.loads(text)["value"] for text in received(broker, client.tasks[0].queue(0))]
        assert found == list(range(25))
        assert list(client.dead_letters()) == []


def test_discard_works_through_a_group(domain: str, broker: Broker) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(25)], "one")
        assert client.discard("work", "all") == 25
        letters = client.dead_letters()
        assert (list(letters), letters.whole) == ([], True)


def test_listing_beside_another_one_is_not_whole(domain: str, broker: Broker) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(3)])
        first = client.dead_letters()
        next(first)
        second = client.dead_letters()
        assert (list(second), second.whole) == ([], False)
        assert "3 more are held elsewhere" in second.missing[0]
        first.close()
        third = client.dead_letters()
        assert (len(list(third)), third.whole, third.missing) == (3, True, ())


# What is refused, lost or interrupted


def test_letter_that_is_refused_stops_and_doubles_no_other(
    domain: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    # Written by another program without escapes: as we write it, it is too large for any queue.
    large = '{"sqspipes":1,"id":"large","value":"' + "€" * 300_000 + '"}'
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body("a"), large, body("z")])
        assert client.redrive() == 2
        assert "dead letter large of work was refused, and stays" in caplog.text
        assert client.redrive() == 0
        assert [letter.id for letter in client.dead_letters()] == ["large"]
        found = sorted(json.loads(text)["value"] for text in received(broker, client.tasks[0].queue(0)))
        assert found == ["a", "z"]


def test_body_of_another_program_goes_back_as_it_was(domain: str, broker: Broker) -> None:
    bodies = ['{ "b": 1.50, "a": "€" }', '"€"', '{"half":', "€" * 300_000, json.dumps("€" * 150_000)]
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, bodies)
        assert client.redrive() == len(bodies)
        assert sorted(received(broker, client.tasks[0].queue(0))) == sorted(bodies)


def refusing(number: int) -> Callable[[Request, Forward], Reply | None]:
    """Let requests pass up to a number, and refuse the others."""
    counted = itertools.count(1)
    refuse = error(403, "AccessDenied")
    return lambda request, forward: forward(request) if next(counted) < number else refuse(request, forward)


@pytest.fixture
def proxied(domain: str, proxy: Proxy) -> Iterator[TaskClient]:
    """A client of SQS whose requests can be counted and spoilt, with 25 dead letters."""
    arguments = {"broker": "sqs://", **AWS, "endpoint_url": proxy.url}
    with piped(domain, arguments, work) as client:
        bury(client, client._broker, [body(number) for number in range(25)])
        proxy.forget()
        yield client


@pytest.mark.parametrize("action", ["ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch"])
def test_redrive_that_is_cut_off_anywhere_leaves_each_letter_once(
    action: str, proxied: TaskClient, proxy: Proxy
) -> None:
    proxy.always(action, refusing(2))
    with pytest.raises(BrokerError):
        proxied.redrive()
    proxy.clear()
    proxied.redrive()
    found = sorted(json.loads(text)["value"] for text in received(proxied._broker, proxied.tasks[0].queue(0)))
    assert found == list(range(25))


def without(entry: int, code: str, sender: bool) -> Callable[[Request, Forward], Reply | None]:
    """Answer that one entry failed, and have it left out."""

    def behave(request: Request, forward: Forward) -> Reply | None:
        entries = request.json["Entries"]
        rest = {**request.json, "Entries": [each for each in entries if each["Id"] != str(entry)]}
        reply = forward(Request(request.method, request.path, request.headers, json.dumps(rest).encode()))
        failed = {"Id": str(entry), "Code": code, "SenderFault": sender, "Message": "provoked"}
        return json_reply({**reply.json, "Failed": [failed]})

    return behave


def test_letter_whose_lease_was_lost_does_not_count(
    proxied: TaskClient, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.plan("DeleteMessageBatch", without(3, "ReceiptHandleIsInvalid", sender=True))
    assert proxied.redrive(ids=[f"id-{number}" for number in range(25)]) == 24
    assert "1 dead letters of work were sent back and could not be deleted" in caplog.text


@pytest.mark.parametrize("action", ["SendMessageBatch", "DeleteMessageBatch"])
def test_entries_that_failed_for_now_are_asked_for_alone_again(
    action: str, proxied: TaskClient, proxy: Proxy
) -> None:
    proxy.plan(action, without(3, "InternalError", sender=False))
    assert proxied.redrive() == 25
    assert [len(request.json["Entries"]) for request in proxy.requests(action)] == [10, 1, 10, 5]
    assert levels(proxied, "work") == [25]


# Numbers


def test_listing_sends_and_deletes_nothing_and_gives_back_in_tens(proxied: TaskClient, proxy: Proxy) -> None:
    letters = proxied.dead_letters()
    assert (len({letter.id for letter in letters}), letters.whole) == (25, True)
    counts = proxy.counts
    assert counts["ChangeMessageVisibilityBatch"] == 3
    assert counts["SendMessageBatch"] == counts["DeleteMessageBatch"] == 0


def test_receives_of_a_listing_overlap(proxied: TaskClient, proxy: Proxy) -> None:
    two = threading.Barrier(2)
    first = itertools.count()

    def meeting(request: Request, forward: Forward) -> Reply | None:
        if next(first) in (1, 2):
            two.wait(15)
        return forward(request)

    proxy.always("ReceiveMessage", meeting)
    assert len(list(proxied.dead_letters())) == 25
    assert not two.broken


class Overtaken:
    """Receives of a broker, of which each second one overtakes the one before it, if that can be.

    One that is made by the thread that lists cannot be overtaken: the next one is not made before its answer.
    """

    def __init__(self, broker: Broker) -> None:
        self._receive = broker.receive
        self._lister = threading.current_thread()
        self._numbers = itertools.count()
        self._answered = [threading.Event() for _ in range(50)]
        self._open = 0
        self.most_open = 0
        self._lock = threading.Lock()

    def receive(self, queue: str, **options: Any) -> list[Delivery]:
        """Receive, when it is this one's turn."""
        with self._lock:
            number = next(self._numbers)
            self._open += 1
            self.most_open = max(self.most_open, self._open)
        if number % 2 and threading.current_thread() is not self._lister:
            self._answered[number + 1].wait(PATIENCE)
        try:
            return self._receive(queue, **options)
        finally:
            with self._lock:
                self._open -= 1
            self._answered[number].set()


@pytest.mark.parametrize("name", ["memory", "sqlite", "redis"])
def test_letters_are_listed_in_the_order_of_a_queue_that_counts_exactly(
    name: str, domain: str, make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker(name)
    # Also where more than one request at a time would gain something.
    monkeypatch.setattr(broker, "limits", dataclasses.replace(broker.limits, requests_in_flight=4))
    overtaken = Overtaken(broker)
    monkeypatch.setattr(broker, "receive", overtaken.receive)
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(60)])
        assert [letter.value for letter in client.dead_letters()] == list(range(60))
        assert overtaken.most_open == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda client: client.redrive(ids=["id-3"]),
        lambda client: client.discard("work", ["id-3"]),
        lambda client: Box(client, "work").named(["id-3"]),
    ],
    ids=["redrive", "discard", "show"],
)
def test_looking_ends_when_all_is_found(
    look: Callable[[TaskClient], Any], proxied: TaskClient, proxy: Proxy
) -> None:
    look(proxied)
    assert proxy.counts["ReceiveMessage"] == 1


def test_letters_that_share_an_id_are_found_as_often_as_it_is_named(domain: str, broker: Broker) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number, id="same", group=f"g{number}") for number in range(12)])
        assert client.redrive(ids=["same"] * 12) == 12
        assert list(client.dead_letters()) == []


def test_letters_that_share_an_id_and_a_group_are_told_apart_by_what_they_are(
    domain: str, broker: Broker
) -> None:
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(1, id="same"), body(2, id="same", redrives=1)])
        assert client.redrive() == 2
        assert list(client.dead_letters()) == []


@pytest.fixture(scope="module")
def quick() -> Iterator[Responder]:
    """A quick SQS in a process of its own."""
    with responder() as it:
        yield it


def test_thousands_of_letters_take_a_receive_and_a_give_back_for_ten(domain: str, quick: Responder) -> None:
    arguments = {"broker": "sqs://", **AWS, "endpoint_url": quick.url}
    with piped(domain, arguments, work) as client:
        client.create_queues()
        queue, numbers = client.tasks[0].dead_queue, range(5_000)
        for start in numbers[::10]:
            some = [Entry(body(start + more), f"g{start + more}", f"k{start + more}") for more in range(10)]
            client._broker.send(queue, some)
        quick.reset(0.002)
        letters = client.dead_letters()
        assert sorted(letter.value for letter in letters) == list(numbers)
        assert letters.whole
        counts = {count["action"]: count["requests"] for count in quick.counts() if count["queue"] == queue}
        # Each of the receives that overlap may be an empty one at the end.
        assert 500 <= counts.pop("ReceiveMessage") <= 500 + receiving.MOST_TOGETHER
        assert counts == {"ChangeMessageVisibilityBatch": 500}


def test_listing_keeps_no_letter(domain: str, make_broker: MakeBroker) -> None:
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(60)])
        most = 0
        for letter in client.dead_letters():
            if letter.value % 15:
                continue
            most = max(most, sum(isinstance(each, DeadLetter) for each in gc.get_objects()))
        assert 0 < most <= 3


def test_listing_that_takes_too_long_ends_and_says_so(
    domain: str, make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiving, "LISTING_SECONDS", 0.2)
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number) for number in range(25)])
        letters = client.dead_letters()
        found = [next(letters).value]
        until(
            lambda: broker.depth(client.tasks[0].dead_queue).in_flight == 0
        )  # the first come back by themselves
        found += [letter.value for letter in letters]
        assert found == list(range(10))
        assert letters.whole is False
        assert "there were still more" in letters.missing[0]
        assert "not all dead letters" in caplog.text


def test_slow_redrive_keeps_its_leases(
    domain: str, make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "LISTING_SECONDS", 10_000.0)
    monkeypatch.setattr(receiving.Look, "is_late", lambda look, deliveries: True)
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body(number, group="one") for number in range(5)])
        assert client.redrive() == 5
        assert levels(client, "work") == [5]
        assert list(client.dead_letters()) == []


# While the task runs


class Patient(SqliteBroker):
    """Lets a second look at dead letters wait until all that went back have died again."""

    looks = 0

    def receive(self, queue: str, **options: Any) -> list[Delivery]:
        if queue.endswith("--dead.fifo"):
            self.looks += 1
            if self.looks > 1:
                until(lambda: (depth := self.depth(queue)).waiting + depth.in_flight == 4)
        return super().receive(queue, **options)


@pytest.mark.parametrize(
    "bodies", [[body("a"), body("b"), '{"half":', '{"foreign": 1}'], [*map(body, "abcd")]]
)
def test_letters_that_die_again_meanwhile_are_left_for_another_time(bodies: list[str], domain: str) -> None:
    def fail(value: Any) -> None:
        raise ValueError(value)

    broker = Patient("memory://")
    with piped(domain, {"broker": broker}, {"method": fail, "name": "work"}, retries=0) as client:
        bury(client, broker, bodies)
        with client.start():
            assert client.redrive() == 4
            assert broker.looks == 3  # what died again was looked at, and given back
            assert client.status().levels[0].dead == 4
    broker.close()


# Tasks that are not registered any more


@pytest.fixture
def renamed(domain: str, broker: Broker) -> Iterator[TaskClient]:
    """A client whose task was renamed from ``work`` to ``new`` while it had dead letters."""
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body("a"), body("b"), body("c")])
        client.register_tasks([{"method": work, "name": "new"}])
        yield client


def test_letters_of_a_task_that_was_renamed_are_listed_sent_on_and_discarded(
    renamed: TaskClient, broker: Broker
) -> None:
    assert sorted(letter.value for letter in renamed.dead_letters("work")) == ["a", "b", "c"]
    assert renamed.redrive("work", ["id-a"], to="new") == 1
    (text,) = received(broker, renamed.tasks[0].queue(0))
    assert (json.loads(text)["value"], json.loads(text)["redrives"]) == ("a", 1)
    assert renamed.discard("work", ["id-b"]) == 1
    assert [letter.id for letter in renamed.dead_letters("work")] == ["id-c"]


def test_letters_of_a_task_that_was_renamed_need_to_be_told_where_to(renamed: TaskClient) -> None:
    with pytest.raises(OptionError, match="'work' is not registered: say to="):
        renamed.redrive("work")
    with pytest.raises(OptionError, match="task 'nobody' is not registered"):
        renamed.redrive("work", to="nobody")
    with pytest.raises(OptionError, match="goes with a task"):
        renamed.redrive(to="new")
    assert len(list(renamed.dead_letters("work"))) == 3


def test_letters_may_go_to_another_task(domain: str, broker: Broker) -> None:
    with piped(
        domain, {"broker": broker}, work, {"method": work, "name": "other", "priorities": 1}
    ) as client:
        bury(client, broker, [body("a", priority=2)])
        assert client.redrive("work", to="other") == 1
        assert (levels(client, "work"), levels(client, "other")) == ([0], [1])


def test_letters_of_a_task_that_is_a_source_now_are_there(domain: str, make_broker: MakeBroker) -> None:
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, work) as client:
        bury(client, broker, [body("a")])
        client.register_tasks(
            [{"method": lambda: 1, "name": "work", "interval": 1}, {"method": work, "name": "new"}]
        )
        assert [letter.value for letter in client.dead_letters("work")] == ["a"]
        assert client.redrive("work", to="new") == 1


def test_letters_of_the_output_are_there(domain: str, make_broker: MakeBroker) -> None:
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, work, output="sink") as client:
        client.create_queues()
        broker.send(f"{domain}--output--sink--dead.fifo", [Entry(body("a"), "g", "k")])
        assert [letter.value for letter in client.dead_letters("output--sink")] == ["a"]
        assert client.redrive("output--sink") == 1
        assert client.get_result(timeout=5) == "a"
