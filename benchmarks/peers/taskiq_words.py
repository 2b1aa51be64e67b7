"""Taskiq with taskiq-aio-sqs and its pipelines, on standard queues."""

from __future__ import annotations

import asyncio
import os
import sys

import boto3
import lines
import work
from taskiq_aio_sqs import SQSBroker
from taskiq_aio_sqs.queue import SQSQueue
from taskiq_pipelines import Pipeline, PipelineMiddleware

receiving = {"max_number_of_messages": 10, "wait_time_seconds": 20, "visibility_timeout": 60}
broker = SQSBroker(
    "vowels",
    endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"],
    region_name="us-east-1",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
    **receiving,
)
broker.with_queues(SQSQueue(name="count", **receiving))
broker.add_middlewares(PipelineMiddleware())


@broker.task(task_name="vowels", queue="vowels")
def vowels(word):
    """Return the word's vowels."""
    return work.vowels(word)


@broker.task(task_name="count", queue="count")
def count(pair):
    """Count them."""
    lines.write(work.count(pair)[0])


async def put(messages):
    """Put words, 32 at a time."""
    await broker.startup()
    free = asyncio.Semaphore(32)

    async def one(word):
        async with free:
            await Pipeline(broker, vowels).call_next(count).kiq(word)

    await asyncio.gather(*map(one, work.words(messages)))
    await broker.shutdown()


if __name__ == "__main__":
    for name in ("vowels", "count"):
        boto3.client("sqs").create_queue(QueueName=name)
    asyncio.run(put(int(sys.argv[1])))
