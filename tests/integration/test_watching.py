"""Watching: status, the names and addresses of queues, and the queues that purge and delete touch."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Sequence
from typing import Any

from sqspipes import Broker
from tests.conftest import AWS
from tests.integration.support import PATIENCE, Seen, passed, piped, run_until, until, waiting
from tests.scripted import Answering, reply
from tests.servers import Forward, Proxy, Reply, Request, error, forwarded

MEMORY = {"broker": "memory://"}
SQS = {"broker": "sqs://", **AWS}


def task(value: Any) -> None:
    """Take a value."""


def broken(value: Any) -> None:
    """Fail, always."""
    raise ValueError


# Status


def test_status_has_a_line_for_each_task_and_level(domain: str, pipe_broker: dict[str, Any]) -> None:
    tasks = [{"method": task, "priorities": 2}, {"method": task, "name": "second", "priorities": 1}]
    with piped(domain, pipe_broker, *tasks) as client:
        status = client.status()
    assert [(level.task, level.priority) for level in status.levels] == [
        ("task", 0),
        ("task", 1),
        ("second", 0),
    ]
    assert {level.approximate for level in status.levels} == {pipe_broker["broker"] == "sqs://"}
    assert (status.strays, status.outage) == ({}, None)


class Counting(Answering):
    """An SQS that has the queues it is told of, and counts them when a number of requests is under way at once."""

    def __init__(self, queues: Sequence[str], together: int) -> None:
        super().__init__()
        self.meeting = threading.Barrier(together)
        self._met = itertools.count()
        urls = [f"{self.url}/0/{queue}" for queue in queues]
        counted = reply(
            b'{"Attributes": {"ApproximateNumberOfMessages": "1", "ApproximateNumberOfMessagesDelayed": "0",'
            b' "ApproximateNumberOfMessagesNotVisible": "0"}}'
        )

        def count(connection: socket.socket) -> None:
            if next(self._met) < together:
                self.meeting.wait(PATIENCE)
            counted(connection)

        self.steps = {
            "ListQueues": reply(json.dumps({"QueueUrls": urls}).encode()),
            "ListQueueTags": reply(b'{"Tags": {}}'),
            "GetQueueAttributes": count,
        }


def test_status_of_many_queues_asks_once_for_each_and_for_many_at_once(domain: str) -> None:
    many = [{"method": task, "name": f"task{number}", "priorities": 16} for number in range(20)]
    with piped(domain, MEMORY, *many) as client:
        queues = client.queue_names
        dead = [one.dead_queue for one in client.tasks]
    with (
        contextlib.closing(Counting([*queues, *dead], together=32)) as server,
        piped(domain, {**SQS, "endpoint_url": server.url}, *many) as client,
    ):
        status = client.status()
        assert not server.meeting.broken
        assert sum(level.waiting for level in status.levels) == 320
        asked = collections.Counter(action for action, _ in server.asked)
        assert asked == {"ListQueues": 1, "GetQueueAttributes": 340, "ListQueueTags": 1}


def test_status_counts_what_waits_what_is_in_flight_and_what_died(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    inside, gate = threading.Event(), threading.Event()

    def work(value: int) -> None:
        if value < 0:
            raise ValueError
        inside.set()
        passed(gate)

    with piped(domain, pipe_broker, work, retries=0) as client:
        client.put_many([-1, -2])
        run_until(client, dead=2)
        client.put(1, group="g")
        client.put(2, group="g")
        with client.start():
            passed(inside)
            (level,) = client.status().levels
            gate.set()
    assert (level.waiting + level.in_flight, level.dead) == (2, 2)
    assert level.in_flight >= 1


def test_status_tells_the_last_poll_and_the_oldest_call(domain: str, pipe_broker: dict[str, Any]) -> None:
    inside, gate = threading.Event(), threading.Event()

    def work(value: int) -> None:
        inside.set()
        passed(gate)

    with piped(domain, pipe_broker, work) as client:
        client.put(1)
        (before,) = client.status().levels
        with client.start():
            passed(inside)
            until(lambda: (client.status().levels[0].oldest_call or 0) > 0.2)
            (during,) = client.status().levels
            gate.set()
        (after,) = client.status().levels
    assert (before.last_poll, before.oldest_call) == (None, None)
    assert during.last_poll is not None
    assert 0 <= during.last_poll < 15
    assert 0.2 < (during.oldest_call or 0) < 15
    assert (after.last_poll, after.oldest_call) == (None, None)


def test_status_tells_strays(domain: str, broker: Broker) -> None:
    arguments = {"broker": broker}
    old = [{"method": broken, "name": "renamed"}, {"method": task, "name": "empty"}]
    with (
        piped(domain, arguments, *old, retries=0) as before,
        piped(domain, arguments, task) as now,
        piped(f"{domain}_other", arguments, task) as neighbour,
    ):
        before.put_many([1, 2])
        run_until(before, dead=2)
        before.put(3)
        neighbour.put(4)
        now.put(5)
        assert now.status().strays == {f"{domain}--renamed.fifo": 1, f"{domain}--renamed--dead.fifo": 2}


def test_status_tells_levels_that_are_not_registered_any_more(domain: str, broker: Broker) -> None:
    with (
        piped(domain, {"broker": broker}, {"method": task, "priorities": 3}) as before,
        piped(domain, {"broker": broker}, {"method": task, "priorities": 2}) as now,
    ):
        before.put(1, priority=2)
        assert now.status().strays == {f"{domain}--task--p2.fifo": 1}


def test_status_without_the_right_to_list_tells_no_strays(domain: str, proxy: Proxy) -> None:
    proxy.always("ListQueues", error(403, "AccessDenied"))
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.put(1)
        status = client.status()
    assert (status.levels[0].waiting, status.strays) == (1, {})


def test_status_tells_an_outage(domain: str, proxy: Proxy) -> None:
    seen = Seen()
    with piped(domain, SQS, seen.take, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.always("ReceiveMessage", error(503, "ServiceUnavailable", "no room at the inn"))
        with client.start():
            until(lambda: "no room at the inn" in (client.status().outage or ""))
            proxy.always("ReceiveMessage", forwarded)
            client.put(1)
            seen.wait(1)
            until(lambda: client.status().outage is None)


def test_oldest_call_of_a_source_is_told(domain: str) -> None:
    inside, gate = threading.Event(), threading.Event()

    def tick() -> int:
        inside.set()
        passed(gate)
        return 1

    with piped(domain, MEMORY, {"method": tick, "interval": 10}, task) as client, client.start():
        passed(inside)
        calls = {level.task: level.oldest_call for level in client.status().levels}
        gate.set()
    assert calls.get("tick") is not None


# Names


def test_names_and_addresses_of_queues(domain: str, pipe_broker: dict[str, Any]) -> None:
    second = {"method": task, "name": "second", "priorities": 1}
    with piped(domain, pipe_broker, {"method": task, "priorities": 2}, second) as client:
        assert client.queue_names == [
            f"{domain}--task.fifo",
            f"{domain}--task--p1.fifo",
            f"{domain}--task--dead.fifo",
            f"{domain}--second.fifo",
            f"{domain}--second--dead.fifo",
        ]
        assert len(set(client.queues)) == 5
        assert all(name in url for name, url in zip(client.queue_names, client.queues, strict=True))
        assert client.domain == domain
        assert [task.name for task in client.tasks] == ["task", "second"]


# Purge and delete


def test_purge_empties_all_queues_of_this_client_and_no_others(domain: str, broker: Broker) -> None:
    with (
        piped(domain, {"broker": broker}, {"method": broken, "priorities": 2}, retries=0) as client,
        piped(domain, {"broker": broker}, {"method": task, "name": "elsewhere"}) as same_domain,
        piped(f"{domain}_other", {"broker": broker}, broken) as other,
    ):
        client.put(1)
        run_until(client, dead=1)
        client.put(2)
        client.put(3, priority=1)
        same_domain.put(4)
        other.put(5)
        client.purge()
        assert [(level.waiting, level.dead) for level in client.status().levels] == [(0, 0), (0, 0)]
        assert (waiting(same_domain, "elsewhere"), waiting(other, "broken")) == (1, 1)


def test_purge_before_first_use_is_no_error(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        client.purge()


def test_delete_removes_all_queues_of_this_client_and_no_others(domain: str, broker: Broker) -> None:
    with (
        piped(domain, {"broker": broker}, {"method": task, "priorities": 2}) as client,
        piped(domain, {"broker": broker}, {"method": task, "name": "elsewhere"}) as same_domain,
    ):
        client.put(1)
        same_domain.put(2)
        client.delete()
        client.delete()
        assert sorted(broker.names(f"{domain}--")) == sorted(same_domain.queue_names)
        assert waiting(same_domain, "elsewhere") == 1


def test_deleted_queues_are_made_again_at_the_next_use(domain: str) -> None:
    with piped(domain, MEMORY, task) as client:
        client.put(1)
        client.delete()
        client.put(2)
        assert waiting(client, "task") == 1


def test_queues_are_counted_several_at_once_and_asked_for_nothing_else(domain: str, proxy: Proxy) -> None:
    arguments = {"broker": "sqs://", **AWS, "endpoint_url": proxy.url}
    tasks = [{"name": f"task_{number}", "priorities": 3} for number in range(3)]
    with piped(domain, arguments, *tasks) as client:
        client.create_queues()
    proxy.forget()
    two, numbers = threading.Barrier(2), itertools.count()

    def meeting(request: Request, forward: Forward) -> Reply | None:
        if next(numbers) < 2:
            two.wait(15)
        return forward(request)

    proxy.always("GetQueueAttributes", meeting)
    with piped(domain, arguments, *tasks) as client:
        assert len(client.status().levels) == 9
    assert not two.broken
    assert proxy.counts == {"ListQueues": 1, "GetQueueAttributes": 12, "ListQueueTags": 1}
