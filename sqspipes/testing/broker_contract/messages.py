"""What is sent arrives, once, as it was."""

from __future__ import annotations

import time

import pytest

from sqspipes.brokers.base import OK, Broker, Entry, Kind
from sqspipes.testing.broker_contract.steps import (
    PATIENCE,
    bodies,
    in_thread,
    kinds,
    made,
    moment,
    put,
    take,
    take_all,
    take_one,
)


def test_sent_message_is_received(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    before = time.time()
    assert broker.send(queue, [Entry('{"value": 1}', "group-1", "id-1")]) == [OK]
    delivery = take_one(broker, queue)
    assert (delivery.queue, delivery.body, delivery.group) == (queue, '{"value": 1}', "group-1")
    assert delivery.receives == 1
    assert delivery.id and delivery.receipt
    assert before - 1 <= delivery.sent <= time.time() + 1


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "\\u00e9\\ud83d\\ude00"}',
        "not JSON at all <&>\"'`%s{}",
        "line\nline\r\n\ttab",
        "0",
    ],
)
def test_body_arrives_as_it_was(broker: Broker, domain: str, body: str) -> None:
    (queue,) = made(broker, domain)
    broker.send(queue, [Entry(body, "g", "id")])
    assert take_one(broker, queue).body == body


def test_groups_and_ids_may_use_all_of_their_alphabet(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    alphabet = "".join(map(chr, range(33, 127)))
    group = (alphabet + alphabet)[:128]
    assert broker.send(queue, [Entry("body", group, group[::-1])]) == [OK]
    assert take_one(broker, queue).group == group


def test_largest_message_passes(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    body = "x" * broker.message_bytes(queue)
    assert broker.send(queue, [Entry(body, "g", "id")]) == [OK]
    assert take_one(broker, queue).body == body


def test_message_that_is_too_large_is_refused_for_good(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    body = "x" * (broker.message_bytes(queue) + 1)
    (answer,) = broker.send(queue, [Entry(body, "g", "id")])
    assert answer.kind is Kind.NEVER and answer.reason
    assert take(broker, queue, wait=0) == []


def test_batch_is_answered_entry_by_entry(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    entries = [Entry(f"body-{i}", f"g-{i}", f"id-{i}") for i in range(broker.limits.entries)]
    assert broker.send(queue, entries) == [OK] * len(entries)
    deliveries = take_all(broker, queue, len(entries))
    assert sorted(bodies(deliveries)) == sorted(entry.body for entry in entries)
    assert len({delivery.id for delivery in deliveries}) == len(entries)


def test_receive_gives_no_more_than_asked_for(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, *"abcde")
    first, second = take(broker, queue, 3), take(broker, queue, 3)
    assert (len(first), len(second)) == (3, 2)
    assert sorted(bodies(first + second)) == list("abcde")


def test_queue_passes_on_only_its_own_messages(broker: Broker, domain: str) -> None:
    left, right = made(broker, domain, "left", "right")
    put(broker, left, "a", group="g")
    assert take(broker, right) == []
    assert bodies(take(broker, left)) == ["a"]


def test_acknowledged_message_is_gone_for_good(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue, lease=moment(broker))
    assert broker.ack(queue, [delivery.receipt]) == [OK]
    assert take(broker, queue, wait=2 * moment(broker)) == []


def test_empty_queue_answers_at_once_without_a_wait(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    take(broker, queue)
    began = time.monotonic()
    assert take(broker, queue, wait=0) == []
    assert time.monotonic() - began < 0.9


def test_empty_queue_is_waited_for_as_long_as_asked(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    began = time.monotonic()
    assert take(broker, queue, wait=moment(broker)) == []
    assert 0.9 * moment(broker) <= time.monotonic() - began < 5


def test_waiting_receive_ends_with_the_first_message(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    began = time.monotonic()
    waiting = in_thread(lambda: take(broker, queue, wait=10))
    put(broker, queue, "a")
    assert bodies(waiting.result(PATIENCE)) == ["a"]
    assert time.monotonic() - began < 5


def test_waiting_receive_gets_what_a_lease_gives_back(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    delivery = take_one(broker, queue)
    waiting = in_thread(lambda: take(broker, queue, wait=10))
    broker.extend(queue, [(delivery.receipt, 0)])
    assert bodies(waiting.result(PATIENCE)) == ["a"]


def test_waiting_receive_gets_what_an_acknowledgement_frees(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a", "b", group="g")
    delivery = take_one(broker, queue)
    waiting = in_thread(lambda: take(broker, queue, wait=10))
    broker.ack(queue, [delivery.receipt])
    assert bodies(waiting.result(PATIENCE)) == ["b"]


def test_threads_share_the_messages_without_a_copy(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    names = [f"m{i}" for i in range(60)]
    senders = [in_thread(lambda part=names[i::3]: put(broker, queue, *part)) for i in range(3)]  # type: ignore[misc]

    def drain() -> list[str]:
        taken: list[str] = []
        while deliveries := take(broker, queue, wait=moment(broker)):
            taken += bodies(deliveries)
            assert set(kinds(broker.ack(queue, [d.receipt for d in deliveries]))) == {Kind.OK}
        return taken

    takers = [in_thread(drain) for _ in range(4)]
    for sender in senders:
        sender.result(PATIENCE)
    taken = [body for taker in takers for body in taker.result(PATIENCE)]
    assert sorted(taken + bodies(take_all(broker, queue, len(names) - len(taken)))) == sorted(names)
