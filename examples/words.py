"""Three tasks, each in a process of its own: make up words, keep their vowels, count them.

In three terminals, or on three machines::

    python examples/words.py generate 8
    python examples/words.py reduce 2
    python examples/words.py count 16

or all in one process: ``python examples/words.py all``. Ctrl-C ends each in good order.
The queues are in the file words.db; ``SQSPIPES_BROKER=sqs://`` moves them to SQS.
"""

from __future__ import annotations

import os
import random
import string
import sys

from sqspipes import TaskClient


def generate(max_size: int) -> str:
    """Make up a word."""
    return "".join(random.choice(string.ascii_lowercase) for _ in range(random.randint(1, max_size)))


def reduce_word(word: str, keep: str = "aeiou") -> tuple[str, str]:
    """Keep a word's vowels."""
    return word, "".join(letter for letter in word if letter in keep)


def count(pair: tuple[str, str]) -> tuple[str, int]:
    """Count the vowels."""
    word, vowels = pair
    return word, len(vowels)


def main(task: str, workers: int | None = None) -> None:
    """Run one task, or all, and print what it returns."""
    client = TaskClient("words", broker=os.environ.get("SQSPIPES_BROKER", "sqlite:///words.db"))
    client.register_tasks(
        [
            {"method": generate, "args": (10,), "interval": 0.1, "workers": 32},
            {"method": reduce_word, "name": "reduce", "workers": 2},
            {"method": count, "workers": 16},
        ]
    )
    with client:
        for result in client.run(None if task == "all" else task, iterate=True, workers=workers):
            print(*(result if isinstance(result, tuple) else [result]), sep=" -> ", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("generate", "reduce", "count", "all"):
        sys.exit("usage: python examples/words.py generate|reduce|count|all [workers]")
    try:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
    except KeyboardInterrupt:
        sys.exit(130)
