"""The bill: requests per message when busy, requests per minute when idle."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from sqspipes import TaskClient
from tests.acceptance.support import eventually
from tests.servers import Proxy

MESSAGES = 1_000
HOT = ("SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")

#: Seconds of an idle pipe that are looked at, and the longest poll.
IDLE_SECONDS, POLL_SECONDS = 60.0, 20.0


def test_busy_pipe_makes_a_third_of_a_request_per_message_and_task(
    proxy: Proxy, domain: str, broker_arguments: Any
) -> None:
    through = threading.Semaphore(0)

    def start(value: int) -> int:
        return value

    def finish(value: int) -> None:
        through.release()

    arguments = {**broker_arguments("sqs"), "endpoint_url": proxy.url}
    client = TaskClient(domain, **arguments)
    client.register_tasks([{"method": start, "workers": 16}, {"method": finish, "workers": 16}])
    client.put_many(range(MESSAGES))
    proxy.forget()
    with client, client.start():
        for _ in range(MESSAGES):
            assert through.acquire(timeout=60)
        eventually(
            lambda: not any(level.waiting + level.in_flight for level in client.status().levels),
            30,
            "acknowledged",
        )
        requests = sum(proxy.counts[action] for action in HOT)
    assert requests / (2 * MESSAGES) <= 0.35, proxy.counts


@pytest.mark.a_minute
@pytest.mark.timeout(180)
def test_idle_pipe_makes_three_requests_a_minute_per_queue(
    proxy: Proxy, domain: str, broker_arguments: Any
) -> None:
    arguments = {**broker_arguments("sqs"), "endpoint_url": proxy.url}
    client = TaskClient(domain, **arguments)
    client.register_tasks([{"name": "one", "method": print}, {"name": "two", "method": print}])
    with client, client.start():
        eventually(lambda: proxy.counts["ReceiveMessage"] == 2, 30, "both queues are polled")
        proxy.forget()
        threading.Event().wait(IDLE_SECONDS)
        requests = proxy.requests()
    assert {request.action for request in requests} <= {"ReceiveMessage", "ListQueueTags"}
    queues = Counter(request.json["QueueUrl"] for request in requests if request.action == "ReceiveMessage")
    assert set(queues.values()) <= {IDLE_SECONDS // POLL_SECONDS - 1, IDLE_SECONDS // POLL_SECONDS}, queues
    assert len(requests) - sum(queues.values()) <= 1  # the control word
