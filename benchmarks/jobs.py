"""Jobs: what is measured, in which sizes, and beside what."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import measuring, valkey
from benchmarks.measuring import Figures
from sqspipes import TaskClient

OURS = "sqspipes"
LOOP = "expert's loop"
PROGRAMS = {OURS: "ours", LOOP: "loop"}

#: What is added to the name of a system whose process is bound to one core.
ONE_CORE = ", one core"

Systems = Mapping[str, Callable[[], Figures]]


@dataclass(frozen=True)
class Scale:
    """How large jobs are: a quick look, the whole, or with a million messages too."""

    quick: bool = False
    full: bool = False

    def of(self, quick: int, whole: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else whole


@dataclass(frozen=True)
class Job:
    """A job: a sentence on it, its systems by their names, and which of these is 1 when ratios are shown, if any.

    ``once``: another run would show nothing new, and takes minutes. ``slow``: not for a quick look. ``needs`` is the
    name of a parameter that this version of sqspipes may not have.
    """

    name: str
    about: str
    base: str
    systems: Callable[[Scale], Systems]
    once: bool = False
    slow: bool = False
    needs: tuple[Callable[..., Any], str] | None = None

    def missing(self) -> str:
        """Return the option that this version does not have yet, or nothing."""
        if self.needs is None or self.needs[1] in inspect.signature(self.needs[0]).parameters:
            return ""
        return self.needs[1]


def both(measure: Callable[..., Figures], **options: Any) -> Systems:
    """Return the two systems that a job compares."""
    return {system: partial(measure, name, **options) for system, name in PROGRAMS.items()}


def busy(round_trip: float) -> Callable[[Scale], Systems]:
    """Return a backlog at a round trip, and the same in processes that are bound to one core."""

    def systems(scale: Scale) -> Systems:
        sizes: dict[str, Any] = {
            "messages": scale.of(2_500, 12_000),
            "round_trip": round_trip,
            "workers": 16,
        }
        found = dict(both(measuring.backlog, **sizes))
        if hasattr(os, "sched_setaffinity") and not scale.quick:
            bound = both(measuring.backlog, one_core=True, **sizes)
            found |= {f"{system}{ONE_CORE}": measure for system, measure in bound.items()}
        return found

    return systems


def one_worker(scale: Scale) -> Systems:
    """Return a backlog with one worker a task, and with 16."""
    sizes: dict[str, Any] = {"messages": scale.of(1_500, 12_000), "round_trip": 0.01}
    return {
        f"{OURS}, {workers} worker{'s' * (workers > 1)}": partial(
            measuring.backlog, "ours", workers=workers, **sizes
        )
        for workers in (16, 1)
    }


def steady(scale: Scale) -> Systems:
    """Return 100 messages a second: ours with nothing but defaults, the loop with one thread a task."""
    sizes: dict[str, Any] = {"messages": scale.of(150, 600), "rate": 100.0}
    return {
        OURS: partial(measuring.flow, "ours", **sizes),
        LOOP: partial(measuring.flow, "loop", workers=1, **sizes),
    }


def alone(scale: Scale) -> Systems:
    """Return messages of which each finds the pipe idle."""
    sizes: dict[str, Any] = {"messages": scale.of(8, 75), "rate": 5.0, "workers": 16}
    return both(measuring.flow, **sizes)


def slow_tasks(scale: Scale) -> Systems:
    """Return tasks of 50 ms on 32 threads each, and what these can do at most."""
    sizes: dict[str, Any] = {
        "messages": scale.of(1_500, 6_000),
        "round_trip": 0.01,
        "workers": 32,
        "seconds": 0.05,
    }
    ceiling = {measuring.ITEMS: 32 / 0.05}
    return {"ceiling": lambda: ceiling, **both(measuring.backlog, **sizes)}


def mixed(scale: Scale) -> Systems:
    """Return a backlog in which one call in a hundred is slow."""
    sizes: dict[str, Any] = {"messages": scale.of(2_000, 12_000), "round_trip": 0.01, "workers": 16}
    return {OURS: partial(measuring.backlog, "ours", seconds=0.05, kind="mixed", **sizes)}


def short_tasks(scale: Scale) -> Systems:
    """Return tasks that wait for a little, or compute for a little."""
    sizes: dict[str, Any] = {"messages": scale.of(1_000, 6_000), "round_trip": 0.01, "workers": 16}
    kinds = {
        "1 ms of sleep": ("sleep", 0.001),
        "5 ms of sleep": ("sleep", 0.005),
        "1 ms of CPU": ("burn", 0.001),
    }
    return {
        name: partial(measuring.backlog, "ours", seconds=seconds, kind=kind, **sizes)
        for name, (kind, seconds) in kinds.items()
    }


def engine_alone(scale: Scale) -> Systems:
    """Return a backlog on a broker that answers at once."""
    return {OURS: partial(measuring.engine, scale.of(3_000, 20_000), 16)}


def quota(scale: Scale) -> Systems:
    """Return a backlog under a FIFO queue's own quota."""
    most = {measuring.PER_TASK: 3000.0}
    sizes: dict[str, Any] = {"messages": scale.of(9_000, 30_000), "quota": 300.0, "workers": 16}
    return {"quota": lambda: most, OURS: partial(measuring.limited, "ours", **sizes)}


def put_many(scale: Scale) -> Systems:
    """Return a backlog that is put."""
    return both(measuring.filling, messages=scale.of(1_500, 12_000))


def put(scale: Scale) -> Systems:
    """Return messages that are put one at a time, on each broker that is not SQS."""
    messages = scale.of(1_500, 12_000)
    return {name: partial(measuring.singly, broker, messages) for name, broker in BROKERS.items()}


def linger(scale: Scale) -> Systems:
    """Return 100 messages a second for each value of the option."""
    values = (0.0, 0.05) if scale.quick else (0.0, 0.02, 0.05, 0.2, 1.0)
    sizes: dict[str, Any] = {"messages": scale.of(150, 600), "rate": 100.0}
    return {
        f"linger={value:g}": partial(measuring.flow, "ours", options={"linger": value}, **sizes)
        for value in values
    }


BROKERS = {
    "memory": "memory://",
    "SQLite, NORMAL": "sqlite:///{file}?synchronous=NORMAL",
    "SQLite, FULL": "sqlite:///{file}?synchronous=FULL",
    **({"Redis, everysec": measuring.REDIS} if valkey.is_installed() else {}),
}


def embedded(scale: Scale) -> Systems:
    """Return a backlog on each broker that is not SQS, beside a bare loop over the same broker."""

    def beside(broker: str) -> Figures:
        messages = scale.of(1_500, 12_000)
        ours = measuring.embedded("ours", broker, messages, workers=16)
        bare = measuring.embedded("bare", broker, messages)
        return {measuring.MESSAGE_TASKS: ours, "a bare loop": bare, measuring.SHARE: ours / bare}

    return {name: partial(beside, broker) for name, broker in BROKERS.items()}


def waking(scale: Scale) -> Systems:
    """Return messages of which each finds the pipe idle, on each broker that is not SQS."""
    sizes: dict[str, Any] = {"messages": scale.of(8, 75), "rate": 5.0}
    return {name: partial(measuring.waking, broker, **sizes) for name, broker in BROKERS.items()}


def waiting_on_sqs(scale: Scale) -> Systems:
    """Return messages done while many more wait behind them on SQS."""
    return {
        f"{more:,} waiting": partial(measuring.behind, 12_000, more, workers=16) for more in (1_000, 100_000)
    }


def joining(scale: Scale) -> Systems:
    """Return slow messages, of which a second process takes its share from when it comes."""
    messages, workers, later = 200, 4, 10.0
    ideal = {measuring.SECONDS: later + (messages - workers * later) / workers / 2}
    return {"ideal": lambda: ideal, OURS: partial(measuring.joined, messages, workers, later)}


def waiting(scale: Scale) -> Systems:
    """Return messages done while many more wait behind them."""

    def behind(more: int, groups: int) -> Figures:
        options = {"workers": 16, "behind": more, "groups": groups}
        rate = measuring.embedded("ours", BROKERS["SQLite, FULL"], 5_000, **options)
        return {measuring.MESSAGE_TASKS: rate}

    sizes = (1_000, 100_000, *([1_000_000] if scale.full else ()))
    return {
        f"{size:,} waiting{', 100 groups' * bool(groups)}": partial(behind, size, groups)
        for groups in ((0, 100) if scale.full else (0,))
        for size in sizes
    }


def idle(scale: Scale) -> Systems:
    """Return three tasks that wait for a minute, with one level each and with four."""
    return {
        f"{OURS}, {levels} level{'s' * (levels > 1)}": partial(measuring.idle, 60.0, 25.0, levels)
        for levels in (1, 4)
    }


def processes(scale: Scale) -> Systems:
    """Return work for the CPU in one process and in two."""
    sizes: dict[str, Any] = {"messages": scale.of(200, 400), "seconds": 0.02}
    return {f"processes={number}": partial(measuring.several, processes=number, **sizes) for number in (1, 2)}


JOBS = (
    Job(
        "busy",
        "A backlog of 12,000 messages goes through two tasks with 16 workers each: one finds a word's vowels, one"
        " counts them and writes a line to a file. Every message is a group of its own, every answer takes 10 ms."
        " *One core*: the process is bound to one.",
        LOOP,
        busy(0.01),
    ),
    Job(
        "busy, no delay",
        "The same with answers that come at once: here the CPU is the limit, and the responder takes its share.",
        LOOP,
        busy(0.0),
    ),
    Job(
        "one worker",
        "The same at 10 ms with one worker for each task: with fast tasks a pipe needs no threads to be fast.",
        f"{OURS}, 16 workers",
        one_worker,
    ),
    Job(
        "steady",
        "100 messages a second, one put each, at the default settings (the loop with one thread for each task); the"
        " puts' own requests are not counted.",
        LOOP,
        steady,
    ),
    Job(
        "idle pipe",
        "Five messages a second, so that each finds the pipe idle: the seconds from before the put to the first call,"
        " and from the end of one task's call to the begin of the next one's. A round trip is 10 ms.",
        LOOP,
        alone,
    ),
    Job(
        "slow tasks",
        "Tasks of 50 ms on 64 workers in all, which can do 640 messages a second at most.",
        "ceiling",
        slow_tasks,
    ),
    Job(
        "mixed",
        "The job *busy* at 10 ms, and one call in a hundred lasts 50 ms.",
        "",
        mixed,
    ),
    Job(
        "short tasks",
        "Tasks that sleep for 1 or 5 ms, or compute for 1 ms, at 10 ms with 16 workers each.",
        "",
        short_tasks,
        slow=True,
    ),
    Job(
        "engine",
        "A backlog of 20,000 messages on a broker that answers at once, in its own process: the engine alone, with"
        " decoding and encoding. A change of threads is counted where a thread gives up the CPU by itself.",
        "",
        engine_alone,
    ),
    Job(
        "second process",
        "200 messages of one second, all waiting; one process with 4 workers begins, and a second one comes 10 s"
        " later.",
        "ideal",
        joining,
        slow=True,
    ),
    Job(
        "quota",
        "300 requests a second for each queue and action, as a FIFO queue has without high throughput, and a backlog"
        " of 30,000 messages; measured from 40 to 90 % of the way.",
        "quota",
        quota,
    ),
    Job("put_many", "12,000 messages are put, at 10 ms, by one thread.", LOOP, put_many),
    Job(
        "put",
        "12,000 messages are put one at a time, by one thread, on the other brokers.",
        "",
        put,
    ),
    Job(
        "linger",
        "100 messages a second again, for five values of the option.",
        "linger=0",
        linger,
        needs=(TaskClient, "linger"),
    ),
    Job(
        "embedded",
        "A backlog of 12,000 messages on the other brokers, beside a bare loop in one thread over the same broker,"
        " which receives, sends and acknowledges in full requests. Redis is a Valkey server on the same machine.",
        "",
        embedded,
    ),
    Job(
        "embedded and idle",
        "Five messages a second on the other brokers, so that each finds the pipe idle; another process puts them,"
        " except in memory.",
        "",
        waking,
        slow=True,
    ),
    Job(
        "waiting on SQS",
        "12,000 messages at 10 ms with 16 workers a task while many more wait behind them, each a group of its own.",
        "1,000 waiting",
        waiting_on_sqs,
        slow=True,
    ),
    Job(
        "waiting",
        "5,000 messages on SQLite with synchronous=FULL while many more wait behind them, each a group of its own or"
        " all in 100 groups.",
        "1,000 waiting",
        waiting,
        slow=True,
    ),
    Job(
        "processes",
        "Tasks that keep a core busy for 20 ms, by the number of processes; two are at most as many as the cores.",
        "processes=1",
        processes,
        needs=(TaskClient.run, "processes"),
    ),
    Job(
        "idle",
        "Three tasks wait for a minute, with one priority level each and with four.",
        f"{OURS}, 1 level",
        idle,
        once=True,
        slow=True,
    ),
)
