"""Fanferro: two FIFO queues, each message a group of its own, four pollers."""

from __future__ import annotations

import asyncio
import os
import sys

import fanferro
import lines
import work

client = fanferro.Client(
    region="us-east-1",
    endpoint_url=os.environ["AWS_ENDPOINT_URL_SQS"],
    credentials=fanferro.Credentials("key", "secret"),
    account_id="000000000000",
    provisioning=fanferro.Provisioning.ensure(),
)
ATTRIBUTES = {
    "VisibilityTimeout": "60",
    "DeduplicationScope": "messageGroup",
    "FifoThroughputLimit": "perMessageGroupId",
}
first, second = (client.queue(f"words-{number}.fifo", attributes=ATTRIBUTES) for number in (1, 2))


async def vowels(word: str) -> None:
    """Send the word's vowels on."""
    await second.send(work.vowels(word), id=word, group_id=word)


async def count(pair: list) -> None:
    """Count them."""
    lines.write(work.count(pair)[0])


async def put(messages: int) -> None:
    """Put words, a hundred at a time."""
    words = list(work.words(messages))
    async with client:
        for start in range(0, messages, 100):
            part = words[start : start + 100]
            await first.send_batch([fanferro.OutgoingMessage(word, id=word, group_id=word) for word in part])


async def consume() -> None:
    """Run both tasks."""
    for queue, handler in ((first, vowels), (second, count)):
        client.consumer(queue, handler, concurrency=16, visibility_timeout=60, pollers=4)
    async with client:
        await client.run()


if __name__ == "__main__":
    asyncio.run(consume() if sys.argv[1] == "worker" else put(int(sys.argv[1])))
