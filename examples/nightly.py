"""A nightly job: reads a file, runs until the pipe is empty, ends with an exit code.

``python examples/nightly.py readings.txt``, from cron or a scheduler: 0 if every line went through, 1 if one
became a dead letter, 3 if the job was told to stop before it was done. What is left waits for the next run.
The queues are in the file nightly.db; ``SQSPIPES_BROKER=sqs://`` moves them to SQS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from sqspipes import Output, TaskClient


def read(path: str) -> Iterator[Output]:
    """Yield each line; the next is read only when the last is safe in the queue."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            # Started again within five minutes, the job does not put a line twice.
            yield Output(line.strip(), id=f"{path}:{number}")


def convert(line: str) -> float:
    """Turn degrees Fahrenheit into Celsius."""
    return round((float(line) - 32) / 1.8, 1)


def store(celsius: float) -> None:
    """Keep the result; here it is printed."""
    print(f"{celsius} C")


def main(path: str) -> int:
    """Run until the file is read and all queues are empty."""
    with TaskClient("nightly", broker=os.environ.get("SQSPIPES_BROKER", "sqlite:///nightly.db")) as client:
        client.register_tasks(
            [
                {"method": read, "args": (path,)},
                {"method": convert, "workers": 4, "non_retryable": (ValueError,)},
                {"method": store},
            ]
        )
        summary = client.run(drain=True)
    print(f"{summary.reason}: {summary.done} calls done, {summary.dead} dead letters", file=sys.stderr)
    if summary.reason != "drained":
        return 3
    return 1 if summary.dead else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/nightly.py FILE")
    sys.exit(main(sys.argv[1]))
