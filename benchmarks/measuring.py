"""Measuring: one run of one program against a fresh responder, as figures by their names."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.running import Responder, program, responder, until
from benchmarks.valkey import valkey

#: The URL in place of that of a server which is started for the measurement.
REDIS = "redis://"

#: Two tasks, in all programs but the idle one.
TASKS = 2

#: Of FIFO queues, for the first 100 billion requests of a month, us-east-1: https://aws.amazon.com/sqs/pricing/
DOLLARS_PER_MILLION_REQUESTS = 0.50

ITEMS = "items/s"
SECONDS = "seconds"
MESSAGE_TASKS = "message-tasks/s"
REQUESTS = "requests per message and task"
CPU = "CPU s per 1,000 message-tasks"
CHANGES = "changes of threads per message-task"
DOLLARS = "$ per million messages and task"
CALL_P50, CALL_P99 = "put to call, p50 ms", "put to call, p99 ms"
PER_TASK = "messages/s and task"
HOP_P50, HOP_P99 = "hop, p50 ms", "hop, p99 ms"

SHARE = "share of it"

Figures = dict[str, float]


def requests(counts: Iterable[Mapping[str, Any]], puts_into: str = "") -> int:
    """Add up requests, but for those that put messages into the first queue."""
    return sum(
        int(count["requests"])
        for count in counts
        if not (count["queue"] == puts_into and str(count["action"]).startswith("Send"))
    )


def settled(server: Responder) -> list[dict[str, Any]]:
    """Return the counts at the end: all deletes are waited for, empty receives after the last message are not."""
    now = {(count["queue"], count["action"]): count for count in server.counts()}
    until(server.empty, 5)
    later = server.counts()
    return [
        count if str(count["action"]).startswith(("Delete", "Change")) else now.get(_key(count), count)
        for count in later
    ]


def _key(count: Mapping[str, Any]) -> tuple[str, str]:
    return str(count["queue"]), str(count["action"])


def per_task(total: int, messages: int) -> Figures:
    """Return what requests mean for a message and a task, and what a million costs."""
    each = total / messages / TASKS
    return {REQUESTS: each, DOLLARS: each * DOLLARS_PER_MILLION_REQUESTS}


@dataclass(frozen=True)
class Sample:
    """The counts of a moment, of all queues together."""

    at: float
    done: int
    requests: int
    throttled: int


def backlog(name: str, round_trip: float, messages: int, **options: Any) -> Figures:
    """Let a program do a backlog that was put before."""
    with responder() as server, program(name, "busy", server, messages=messages, **options) as it:
        server.reset(round_trip)
        it.go()
        found = it.found()
        total = requests(settled(server), it.told["first"])
    return {
        ITEMS: found["done"] / found["seconds"],
        **per_task(total, messages),
        CPU: found["cpu"] / messages / TASKS * 1000,
        CHANGES: found["changes"] / messages / TASKS,
    }


def engine(messages: int, workers: int) -> Figures:
    """Let a program do a backlog on a broker that answers at once, in its own process."""
    with program("ours", "engine", messages=messages, workers=workers) as it:
        it.go()
        found = it.found()
    return {
        MESSAGE_TASKS: TASKS * messages / found["seconds"],
        CPU: found["cpu"] / messages / TASKS * 1000,
        CHANGES: found["changes"] / messages / TASKS,
    }


def embedded(name: str, broker: str, messages: int, **options: Any) -> float:
    """Let a program do a backlog on a broker that is not SQS; return message-tasks a second."""
    with _url(broker) as url, program(name, "busy", broker=url, messages=messages, **options) as it:
        it.go()
        found = it.found()
    return float(TASKS * found["done"] / found["seconds"])


@contextmanager
def _url(broker: str) -> Iterator[str]:
    """Give a broker's URL its file, or its server."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, ExitStack() as stack:
        url = broker.format(file=Path(folder, "pipe.db").as_posix())
        yield stack.enter_context(valkey(Path(folder))) if url == REDIS else url


def flow(name: str, messages: int, rate: float, round_trip: float = 0.01, **options: Any) -> Figures:
    """Let a program do what another one puts at a rate."""
    with (
        responder() as server,
        program(name, "serve", server, messages=messages, **options) as it,
        program(name, "feed", server, messages=messages, rate=rate) as feeder,
    ):
        server.reset(round_trip)
        it.go()
        # The message that was put to begin with is through, and a poll is open on each queue.
        until(lambda: _polled(server) >= TASKS and server.empty(), 30)
        server.reset(round_trip)
        feeder.go()
        found = it.found()
        total = requests(settled(server), it.told["first"])
    return {**per_task(total, messages), **latencies(found), CPU: found["cpu"] / messages / TASKS * 1000}


def waking(broker: str, messages: int, rate: float) -> Figures:
    """Let a program do what is put at a rate on a broker that is not SQS: by another process, if the broker can."""
    with _url(broker) as url, ExitStack() as stack:
        sizes: dict[str, Any] = {"broker": url, "messages": messages}
        if url.startswith("memory"):
            ready = [stack.enter_context(program("ours", "serve", workers=16, rate=rate, **sizes))]
        else:
            ready = [
                stack.enter_context(program("ours", "serve", workers=16, **sizes)),
                stack.enter_context(program("ours", "feed", rate=rate, **sizes)),
            ]
        for it in ready:
            it.go()
        return latencies(ready[0].found())


def _polled(server: Responder) -> int:
    return sum(count["action"] == "ReceiveMessage" for count in server.counts())


def latencies(found: Mapping[str, Sequence[float]]) -> Figures:
    """Return percentiles in milliseconds."""
    return {
        CALL_P50: percentile(found["calls"], 50),
        CALL_P99: percentile(found["calls"], 99),
        HOP_P50: percentile(found["hops"], 50),
        HOP_P99: percentile(found["hops"], 99),
    }


def percentile(seconds: Sequence[float], share: int) -> float:
    """Return a percentile of times, in milliseconds."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


def filling(name: str, messages: int, round_trip: float = 0.01) -> Figures:
    """Let a program put a backlog."""
    with responder() as server, program(name, "fill", server, messages=messages) as it:
        server.reset(round_trip)
        it.go()
        found = it.found()
        total = requests(server.counts())
    return {
        "messages/s": messages / found["seconds"],
        "requests per message": total / messages,
        "CPU s per 1,000 messages": found["cpu"] / messages * 1000,
    }


def singly(broker: str, messages: int) -> Figures:
    """Let a program put messages one at a time on a broker that is not SQS."""
    with _url(broker) as url, program("ours", "put_singly", broker=url, messages=messages) as it:
        it.go()
        found = it.found()
    return {
        "messages/s": messages / found["seconds"],
        "CPU s per 1,000 messages": found["cpu"] / messages * 1000,
    }


def sampled(server: Responder, enough: int) -> list[Sample]:
    """Look at the counts until so many messages have been deleted."""
    samples: list[Sample] = []

    def sample() -> bool:
        counts = server.counts()
        done = sum(int(one["entries"]) for one in counts if str(one["action"]).startswith("Delete"))
        throttled = sum(int(one["throttled"]) for one in counts)
        samples.append(Sample(time.monotonic(), done, requests(counts), throttled))
        return done >= enough

    until(sample, 300, every=0.1)
    return samples


def stretch(server: Responder, begin: int, end: int) -> tuple[Sample, Sample]:
    """Wait until ``end`` messages have been deleted; return the counts then, and those from when ``begin`` were."""
    samples = sampled(server, end)
    return next(one for one in samples if one.done >= begin), samples[-1]


def pace(begin: Sample, end: Sample) -> float:
    """Return messages a second from one moment to another."""
    return (end.done - begin.done) / (end.at - begin.at)


def limited(name: str, messages: int, quota: float, round_trip: float = 0.01, **options: Any) -> Figures:
    """Let a program do a backlog under a quota; leave out the begin, in which it learns the rate, and the end."""
    work = TASKS * messages
    with responder() as server, program(name, "busy", server, messages=messages, **options) as it:
        server.reset(round_trip, quota)
        it.go()
        begin, end = stretch(server, work * 4 // 10, work * 9 // 10)
    return {
        PER_TASK: pace(begin, end) / TASKS,
        "throttled, % of requests": 100 * (end.throttled - begin.throttled) / (end.requests - begin.requests),
    }


def idle(seconds: float, settle: float, priorities: int) -> Figures:
    """Let three tasks wait for nothing."""
    with (
        responder() as server,
        program("ours", "idle", server, seconds=seconds, settle=settle, priorities=priorities) as it,
    ):
        server.reset(0.01)
        it.go()
        found = it.found()
        total = requests(server.counts())
    return {
        "requests per minute and queue": total / it.told["queues"] / found["seconds"] * 60,
        "% of a core": 100 * found["cpu"] / found["seconds"],
    }


def behind(messages: int, more: int, round_trip: float = 0.01, **options: Any) -> Figures:
    """Let a program do a backlog while more waits behind it; the first task may be ahead of the second."""
    work = TASKS * messages
    with (
        responder() as server,
        program("ours", "busy", server, messages=messages, behind=more, **options) as it,
    ):
        server.reset(round_trip)
        it.go()
        return {MESSAGE_TASKS: pace(*stretch(server, work // 10, work))}


def joined(messages: int, workers: int, later: float) -> Figures:
    """Let a process do messages of one second, and another help that comes later."""
    options: dict[str, Any] = {"workers": workers, "seconds": 1.0}
    with (
        responder() as server,
        program("ours", "joining", server, messages=messages, **options) as first,
        program("ours", "joining", server, **options) as second,
    ):
        server.reset(0.01)
        begun = time.monotonic()
        first.go()
        threading.Event().wait(later)
        second.go()
        end = sampled(server, messages)[-1]
    return {SECONDS: end.at - begun}


def several(messages: int, seconds: float, processes: int) -> Figures:
    """Let several processes do work for the CPU."""
    options = {"messages": messages, "seconds": seconds, "processes": processes}
    with responder() as server, program("ours", "burning", server, **options) as it:
        server.reset(0.01)
        it.go()
        return {ITEMS: pace(*stretch(server, messages // 10, messages * 9 // 10))}


def median(runs: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
