"""A broker that is away while a call ends is waited for: that is no failure of the task, and no end of the run."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sqspipes import Reject, TaskCallback, TaskClient
from sqspipes.brokers.base import Broker
from tests.conftest import AWS
from tests.integration.outages import Between
from tests.integration.support import Seen, piped, run_until
from tests.servers import Forward, Proxy, Reply, Request, json_reply

#: Requests that a call's end makes, or would make; the broker is there again when two of them were refused.
AT_THE_END = ("send", "message_bytes")


class Work:
    """The ways in which a call hands something on; the broker is away from the first call on."""

    def __init__(self, broker: Between) -> None:
        self.broker = broker
        self.calls: list[str] = []
        self._refused = 0

    def begin(self, value: str) -> None:
        self.calls.append(value)
        if len(self.calls) == 1:
            self.broker.refuses = self._refuses

    def _refuses(self, name: str, queue: str) -> bool:
        self._refused += name in AT_THE_END
        return self._refused <= 2

    def result(self, value: str) -> str:
        self.begin(value)
        return value

    def values(self, value: str) -> Iterator[str]:
        self.begin(value)
        yield value

    def callback(self, value: str) -> TaskCallback:
        self.begin(value)
        return TaskCallback(value, lambda: None)

    async def coroutine(self, value: str) -> str:
        self.begin(value)
        return value

    def batch(self, values: list[str]) -> list[str]:
        self.begin(values[0])
        return values

    def letter(self, value: str) -> None:
        self.begin(value)
        raise Reject("no")

    def last_failure(self, value: str) -> None:
        self.begin(value)
        raise ValueError


@pytest.mark.parametrize("way", ["result", "values", "callback", "coroutine", "batch"])
def test_result_waits_for_the_broker_and_costs_no_attempt(domain: str, broker: Broker, way: str) -> None:
    between, seen = Between(broker), Seen()
    work = Work(between)
    task = {"method": getattr(work, way), "name": "work", **({"batch": 2} if way == "batch" else {})}
    client = piped(domain, {"broker": between}, task, {"method": seen.take, "name": "take"})
    client.put("one")
    summary = run_until(client, done=2)
    assert (work.calls, seen.values) == (["one"], ["one"])
    assert (summary.failed, summary.dead) == (0, 0)


@pytest.mark.parametrize("way", ["letter", "last_failure"])
def test_dead_letter_waits_for_the_broker(domain: str, broker: Broker, way: str) -> None:
    between = Between(broker)
    work = Work(between)
    client = piped(domain, {"broker": between}, {"method": getattr(work, way), "name": "work", "retries": 0})
    client.put("one")
    assert run_until(client, dead=1).dead == 1
    assert work.calls == ["one"]
    assert [letter.value for letter in client.dead_letters()] == ["one"]


def test_every_first_request_of_a_run_may_fail(domain: str, broker: Broker) -> None:
    calls: Counter[Any] = Counter()

    def split(value: int) -> Iterator[int]:
        calls["split", value] += 1
        if value == 3:
            raise Reject("no")
        yield from (10 * value, 10 * value + 1)

    def last(value: int) -> None:
        calls["last", value] += 1

    between = Between(broker)
    client = piped(domain, {"broker": between}, split, last)
    client.put_many(range(4))
    refused: set[tuple[str, str]] = set()

    def refuses(name: str, queue: str) -> bool:
        first = (name, queue) not in refused and name != "declare"
        refused.add((name, queue))
        return first

    between.refuses = refuses
    summary = client.run(drain=1.0)
    assert (summary.done, summary.failed, summary.dead) == (9, 1, 1)
    assert set(calls.values()) == {1}
    assert {"receive", "send", "ack", "depth"} <= {name for name, _ in refused}


def _fails_once_a_queue() -> Callable[[Request, Forward], Reply | None]:
    """Each queue's first request is answered with a 500."""
    failed: set[str] = set()

    def behave(request: Request, forward: Forward) -> Reply | None:
        queue = request.json.get("QueueName") or request.json["QueueUrl"].rpartition("/")[2]
        if queue in failed:
            return forward(request)
        failed.add(queue)
        return json_reply({"__type": "InternalFailure", "message": "provoked"}, 500, "InternalFailure")

    return behave


def test_first_dead_letter_of_a_process_survives_a_failure_of_the_way_to_its_queue(
    domain: str, proxy: Proxy
) -> None:
    def work(value: int) -> None:
        raise Reject("no")

    arguments = {"broker": "sqs://", "endpoint_url": proxy.url, **AWS}
    with piped(domain, arguments, {"name": "work"}) as parent:
        parent.put_many(range(3))
        # As in a further process: it has seen none of the queues itself.
        with pickle.loads(pickle.dumps(parent)) as client:
            assert isinstance(client, TaskClient)
            client.register_tasks([work])
            proxy.always("GetQueueUrl", _fails_once_a_queue())
            proxy.always("GetQueueAttributes", _fails_once_a_queue())
            assert run_until(client, dead=3).failed == 3
