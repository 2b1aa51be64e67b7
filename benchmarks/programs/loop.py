"""What an expert would write by hand: boto3, threads, and everything in tens.

A hand-off is sent before its message is deleted, with an id that follows from it; a request that fails is repeated by
boto3. There is no retry of a task, no lease that is kept up, no dead letter and no order beyond SQS's.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.programs import work

QUEUES = ("loop-1.fifo", "loop-2.fifo")
ATTRIBUTES = {
    "FifoQueue": "true",
    "VisibilityTimeout": "60",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perMessageGroupId",
}

Item = tuple[str, Any]
Handle = Callable[[list[Item]], list[Item]]


def opened() -> tuple[Any, list[str]]:
    """Return a client, and the URLs of the two queues, which are made."""
    settings = Config(max_pool_connections=200, retries={"mode": "standard", "max_attempts": 5})
    sqs = boto3.client("sqs", config=settings)
    return sqs, [sqs.create_queue(QueueName=name, Attributes=ATTRIBUTES)["QueueUrl"] for name in QUEUES]


def send(sqs: Any, url: str, items: Sequence[Item]) -> None:
    """Send up to ten items, each a group of its own."""
    entries = [
        {
            "Id": str(number),
            "MessageBody": json.dumps(value),
            "MessageGroupId": key,
            "MessageDeduplicationId": key,
        }
        for number, (key, value) in enumerate(items)
    ]
    sqs.send_message_batch(QueueUrl=url, Entries=entries)


def put(sqs: Any, url: str, values: Iterable[str]) -> None:
    """Send values, ten at a time."""
    left = iter(values)
    while ten := list(itertools.islice(left, 10)):
        send(sqs, url, [(value, value) for value in ten])


def turn(sqs: Any, url: str, handle: Handle, target: str | None) -> None:
    """Receive, handle, hand on, delete; for ever."""
    while True:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=20,
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        got = answer.get("Messages")
        if not got:
            continue
        items = handle([(one["Attributes"]["MessageGroupId"], json.loads(one["Body"])) for one in got])
        if target:
            send(sqs, target, items)
        receipts = [
            {"Id": str(place), "ReceiptHandle": one["ReceiptHandle"]} for place, one in enumerate(got)
        ]
        sqs.delete_message_batch(QueueUrl=url, Entries=receipts)


def start(sqs: Any, urls: Sequence[str], first: Handle, second: Handle, workers: int) -> None:
    """Start the threads of both tasks."""
    for url, handle, target in ((urls[0], first, urls[1]), (urls[1], second, None)):
        for number in range(workers):
            args = (sqs, url, handle, target)
            threading.Thread(target=turn, args=args, name=f"loop-{number}", daemon=True).start()


def busy(messages: int, workers: int, seconds: float = 0.0) -> None:
    """Do the whole of a backlog."""
    sink = work.Sink(messages, lines=True)

    def first(items: list[Item]) -> list[Item]:
        return [(key, work.vowels(value, seconds)) for key, value in items]

    def second(items: list[Item]) -> list[Item]:
        for _, value in items:
            sink.add(work.count(value, seconds)[0])
        return []

    sqs, urls = opened()
    put(sqs, urls[0], work.words(messages))
    spent = work.go(first=QUEUES[0])
    start(sqs, urls, first, second, workers)
    work.tell({"done": sink.wait(), **spent()})


def serve(messages: int, workers: int) -> None:
    """Note when messages come, until so many have come."""
    times = work.Times(messages)

    def first(items: list[Item]) -> list[Item]:
        return [(key, (value, times.called(value))) for key, value in items]

    def second(items: list[Item]) -> list[Item]:
        for _, (value, left) in items:
            times.hopped(value, left)
        return []

    sqs, urls = opened()
    spent = work.go(first=QUEUES[0])
    start(sqs, urls, first, second, workers)
    work.tell({**times.wait(), **spent()})


def feed(messages: int, rate: float) -> None:
    """Send messages at a rate, one request each."""
    sqs, urls = opened()

    def one(value: float) -> None:
        key = f"{value!r}-{threading.get_ident()}"
        sqs.send_message(
            QueueUrl=urls[0],
            MessageBody=json.dumps(value),
            MessageGroupId=key,
            MessageDeduplicationId=key,
        )

    one(0)
    work.go()
    work.at_a_rate(one, rate, messages)
    work.tell({})


def fill(messages: int) -> None:
    """Send a backlog."""
    sqs, urls = opened()
    spent = work.go(first=QUEUES[0])
    put(sqs, urls[0], work.words(messages))
    work.tell({"done": messages, **spent()})


if __name__ == "__main__":
    work.main(busy, serve, feed, fill)
