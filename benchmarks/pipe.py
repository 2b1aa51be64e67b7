"""How fast a pipe runs, and how many requests it makes, beside a bare loop over the same broker.

``python benchmarks/pipe.py [--messages 5000] [--runs 3] [URL ...]``, by default on memory and on a file with both
settings of ``synchronous``. For a server: ``python benchmarks/pipe.py sqs://`` with the account, region and
endpoint in the environment.

The pipe has two tasks that do nothing, with 16 workers each, and messages of many groups that are put before. The
loop is the least that any program must do: receive, send, acknowledge, in full requests and in one thread. Each pair
of figures comes from one run, one after the other; the median run is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqspipes import Broker, TaskClient, open_broker
from sqspipes.brokers.base import Entry, QueueSpec

TASKS, WORKERS = 2, 16
COUNTED = ("send", "receive", "ack", "extend")


@dataclass(frozen=True)
class Figures:
    """One run: put messages a second, message-tasks a second of pipe and loop, requests and CPU per message-task."""

    put: float
    pipe: float
    loop: float
    requests: float
    cpu_ms: float


def first(value: int) -> int:
    """Hand the value on."""
    return value


def second(value: int) -> None:
    """End the line."""


def counted(broker: Broker) -> dict[str, int]:
    """Count a broker's requests from now on."""
    counts = dict.fromkeys(COUNTED, 0)

    def count(name: str) -> None:
        request = getattr(broker, name)

        def counting(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return request(*args, **options)

        setattr(broker, name, counting)

    for name in COUNTED:
        count(name)
    return counts


def pipe(url: str, messages: int) -> tuple[float, float, float, float]:
    """Run the pipe; return puts and message-tasks a second, requests and CPU milliseconds per message-task."""
    broker = open_broker(url)
    with TaskClient(f"bench_{uuid.uuid4().hex[:8]}", broker=broker) as client:
        client.register_tasks([{"method": first, "workers": WORKERS}, {"method": second, "workers": WORKERS}])
        client.create_queues()
        begun = time.perf_counter()
        client.put_many(range(messages))
        put = messages / (time.perf_counter() - begun)
        counts = counted(broker)
        begun, cpu = time.perf_counter(), time.process_time()
        client.run(drain=1.0 if url.startswith("sqs") else True)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        client.delete()
    broker.close()
    work = TASKS * messages
    return put, work / seconds, sum(counts.values()) / work, 1000 * cpu / work


def loop(url: str, messages: int) -> float:
    """Do the least that must be done; return message-tasks a second."""
    broker = open_broker(url)
    queues = [f"loop_{uuid.uuid4().hex[:8]}--{number}.fifo" for number in range(TASKS)]
    broker.declare([QueueSpec(queue) for queue in queues])
    most = broker.limits.entries
    for start in range(0, messages, most):
        broker.send(queues[0], [entry(number) for number in range(start, min(start + most, messages))])
    begun = time.perf_counter()
    for queue, target in zip(queues, [*queues[1:], None], strict=True):
        while got := broker.receive(queue, count=most, wait=0, lease=60, attempt=uuid.uuid4().hex):
            if target:
                broker.send(target, [Entry(one.body, one.group, one.group) for one in got])
            broker.ack(queue, [one.receipt for one in got])
    seconds = time.perf_counter() - begun
    for queue in queues:
        broker.delete(queue)
    broker.close()
    return TASKS * messages / seconds


def entry(number: int) -> Entry:
    """Return a message of a group of its own."""
    return Entry(json.dumps({"value": number, "padding": "x" * 100}), f"group-{number}", f"id-{number}")


def measure(url: str, messages: int) -> Figures:
    """Run the pipe and the loop, one after the other."""
    put, tasks, requests, cpu = pipe(url, messages)
    return Figures(put, tasks, loop(url, messages), requests, cpu)


def show(brokers: Mapping[str, str], messages: int, runs: int) -> None:
    """Print a table, a line for each broker."""
    print(f"{'broker':<28}{'put/s':>9}{'tasks/s':>9}{'loop/s':>9}{'ratio':>7}{'requests':>10}{'CPU ms':>8}")
    for name, url in brokers.items():
        found = [measure(url, messages) for _ in range(runs)]
        middle = [
            statistics.median(getattr(one, name) for one in found) for name in Figures.__dataclass_fields__
        ]
        put, tasks, bare, requests, cpu = middle
        ratio = statistics.median(one.pipe / one.loop for one in found)
        print(f"{name:<28}{put:>9,.0f}{tasks:>9,.0f}{bare:>9,.0f}{ratio:>7.2f}{requests:>10.3f}{cpu:>8.3f}")


def main() -> None:
    """Measure the brokers that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument("--messages", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pipe-") as folder:
        file = f"sqlite:///{Path(folder, 'pipe.db').as_posix()}"
        embedded = {
            "memory": "memory://",
            "sqlite, synchronous=NORMAL": f"{file}?synchronous=NORMAL",
            "sqlite, synchronous=FULL": f"{file}?synchronous=FULL",
        }
        show({url: url for url in options.urls} or embedded, options.messages, options.runs)


if __name__ == "__main__":
    main()
