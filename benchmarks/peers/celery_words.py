"""Celery on SQS: a chain of two tasks, in threads, deleted after they have run (acks_late)."""

from __future__ import annotations

import os
import sys

import lines
import work
from celery import Celery, chain
from kombu import Queue

server = os.environ["AWS_ENDPOINT_URL_SQS"].removeprefix("http://")
app = Celery("words", broker=f"sqs://key:secret@{server}//")
app.conf.update(
    broker_transport_options={
        "region": "us-east-1",
        "is_secure": False,
        "visibility_timeout": 60,
        "wait_time_seconds": 20,
    },
    task_acks_late=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    task_default_queue="vowels",
    task_queues=[Queue("vowels"), Queue("count")],
    task_routes={"vowels": {"queue": "vowels"}, "count": {"queue": "count"}},
)


@app.task(name="vowels")
def vowels(word):
    """Return the word's vowels."""
    return work.vowels(word)


@app.task(name="count")
def count(pair):
    """Count them."""
    lines.write(work.count(pair)[0])


if __name__ == "__main__":
    with app.producer_or_acquire() as producer:
        for each in work.words(int(sys.argv[1])):
            chain(vowels.s(each), count.s()).apply_async(producer=producer)
