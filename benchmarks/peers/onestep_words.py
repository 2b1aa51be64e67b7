"""Onestep with onestep-sqs: two tasks with a source and a target, on standard queues."""

from __future__ import annotations

import asyncio
import os
import sys

import boto3
import lines
import work
from onestep import OneStepApp
from onestep.envelope import Envelope
from onestep_sqs import SQSConnector

URL = os.environ["AWS_ENDPOINT_URL_SQS"] + "/000000000000/"
connector = SQSConnector(region_name="us-east-1")
first, second = (connector.queue(f"{URL}words-{number}", visibility_timeout=60) for number in (1, 2))
app = OneStepApp("words")


@app.task(source=first, emit=second, concurrency=16)
async def vowels(context, word):
    """Return the word's vowels."""
    return work.vowels(word)


@app.task(source=second, concurrency=16)
async def count(context, pair):
    """Count them."""
    lines.write(work.count(pair)[0])


async def put(messages):
    """Put words, one at a time."""
    await first.open()
    for word in work.words(messages):
        await first.send(Envelope(body=word))
    await first.close()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        app.run()
    else:
        for number in (1, 2):
            boto3.client("sqs").create_queue(QueueName=f"words-{number}")
        asyncio.run(put(int(sys.argv[1])))
