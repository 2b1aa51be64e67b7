"""Dramatiq on SQS: a pipeline of two actors on standard queues."""

from __future__ import annotations

import sys

import dramatiq
import lines
import work
from dramatiq_sqs import SQSBroker

dramatiq.set_broker(SQSBroker(namespace="words", visibility_timeout=60))


@dramatiq.actor(queue_name="vowels")
def vowels(word):
    """Return the word's vowels."""
    return work.vowels(word)


@dramatiq.actor(queue_name="count")
def count(pair):
    """Count them."""
    lines.write(work.count(pair)[0])


if __name__ == "__main__":
    for each in work.words(int(sys.argv[1])):
        dramatiq.pipeline([vowels.message(each), count.message()]).run()
