"""The ledger: what was put, what came out, and what the queues saw on the way."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqspipes import TaskClient
from sqspipes.brokers import open_broker
from tests.servers import Forward, Reply, Request
from tests.valkey import Valkey

#: The pipe of every scenario. Nobody runs the last one: its queue holds the results.
TASKS = ("one", "two", "three")
RESULTS = "results"

#: Per queue and message, the ids that the broker gave to what it stored.
Stored = dict[str, dict[str, set[str]]]


class Witness(Protocol):
    """Sees every message that a broker stores."""

    def stored(self) -> Stored:
        """Return what was stored so far."""
        ...


class SqsWitness:
    """Looks at what the server answers; a behaviour of the proxy, the one nearest to the server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: Stored = defaultdict(lambda: defaultdict(set))

    def __call__(self, request: Request, forward: Forward) -> Reply:
        reply = forward(request)
        if reply.status == 200 and request.action in ("SendMessageBatch", "ReceiveMessage"):
            queue = request.json["QueueUrl"].rpartition("/")[2]
            with self._lock:
                for body, broker_id in _messages(request, reply):
                    self._stored[queue][sqspipes_id(body, broker_id)].add(broker_id)
        return reply

    def stored(self) -> Stored:
        with self._lock:
            return {queue: dict(ids) for queue, ids in self._stored.items()}


def _messages(request: Request, reply: Reply) -> Iterator[tuple[str, str]]:
    """Bodies and message ids: of what was received, and of what a send was answered with."""
    for message in reply.json.get("Messages") or ():
        yield message["Body"], message["MessageId"]
    if request.action == "SendMessageBatch":
        bodies = {entry["Id"]: entry["MessageBody"] for entry in request.json["Entries"]}
        for entry in reply.json.get("Successful") or ():
            yield bodies[entry["Id"]], entry["MessageId"]


class SqliteWitness:
    """Has the database itself write down what is stored, by a trigger; install it when the queues are there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def install(self) -> SqliteWitness:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            database.execute("CREATE TABLE witness(queue INTEGER, seq INTEGER, body TEXT)")
            database.execute(
                "CREATE TRIGGER witness_stored AFTER INSERT ON message BEGIN "
                "INSERT INTO witness VALUES(new.queue, new.seq, new.body); END"
            )
        return self

    def stored(self) -> Stored:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as database:
            rows = database.execute("SELECT name, seq, body FROM witness JOIN queue ON id=queue").fetchall()
        stored: Stored = defaultdict(lambda: defaultdict(set))
        for queue, seq, body in rows:
            stored[queue][sqspipes_id(body, str(seq))].add(str(seq))
        return stored


class RedisWitness:
    """Reads what is stored in the server's append-only file."""

    def __init__(self, server: Valkey, prefix: str) -> None:
        self._server, self._prefix = server, prefix

    def stored(self) -> Stored:
        stored: Stored = defaultdict(lambda: defaultdict(set))
        names: dict[str, str] = {}
        for command, *arguments in self._server.appended():
            prefix, _, key = arguments[0].partition(":") if arguments else ("", "", "")
            if prefix != self._prefix:
                continue
            if command.upper() == "HSET" and key == "queues":
                names[arguments[2].partition(" ")[0]] = arguments[1]
            if command.upper() in ("HSET", "HMSET") and key.endswith(":messages"):
                queue = names[key.partition(":")[0]]
                for number, message in zip(arguments[1::2], arguments[2::2], strict=True):
                    stored[queue][sqspipes_id(message.split(" ", 2)[2], number)].add(number)
        return stored


def sqspipes_id(body: str, otherwise: str) -> str:
    """Return a body's part that tells its message from others; of a foreign body, the other one."""
    try:
        message = json.loads(body)
        return " ".join(
            [message["id"], *(str(message.get(key)) for key in ("group", "priority", "redrives"))]
        )
    except (ValueError, KeyError, TypeError):
        return otherwise


@dataclass(frozen=True)
class Balance:
    """What the ledger says of a scenario."""

    messages: int
    lost: int
    both: int  #: among the results and among the dead letters
    twice: int  #: hand-offs that happened twice
    disordered: int  #: groups that are not in order
    repeated: int  #: calls beyond the first of each message and task
    dead: int
    left: int  #: messages that are still in a task's queue

    @property
    def broken(self) -> dict[str, int]:
        """The promises that do not hold."""
        faults = {"lost": self.lost, "both": self.both, "twice": self.twice, "disordered": self.disordered}
        return {name: count for name, count in {**faults, "left": self.left}.items() if count}


class Ledger:
    """Puts numbered messages of several groups into a pipe, and accounts for each of them.

    A value is ``{"group": g, "n": n}``. ``arguments`` lead past every proxy. A task has so many ``levels``.
    """

    def __init__(
        self,
        domain: str,
        arguments: dict[str, Any],
        journal: Path,
        witness: Witness | None,
        levels: int = 1,
    ) -> None:
        self.domain, self.arguments, self.journal = domain, arguments, journal
        self.witness = witness
        self.levels = levels
        self.put: dict[str, list[int]] = {}
        self.client = TaskClient(domain, **arguments).register_tasks(
            [{"name": name, "priorities": levels} for name in (*TASKS, RESULTS)]
        )
        self.client.create_queues()
        if isinstance(witness, SqliteWitness):
            witness.install()
        self.broker = open_broker(arguments["broker"], **_ways(arguments))

    def close(self) -> None:
        self.broker.close()
        self.client.close()

    def feed(self, groups: int, each: int, *, client: TaskClient | None = None, grouped: bool = True) -> None:
        """Put ``each`` messages of every group, the groups in turn; numbers go on where they ended."""
        names = [f"g{number}" for number in range(groups)]
        firsts = {name: len(self.put.setdefault(name, [])) for name in names}
        values = [{"group": name, "n": firsts[name] + n} for n in range(each) for name in names]
        (client or self.client).put_many(values, group=(lambda value: value["group"]) if grouped else None)
        for value in values:
            self.put[value["group"]].append(value["n"])

    def feed_shared_ids(self, groups: int, each: int) -> None:
        """Put messages that share their ids, with those of other groups and of other levels.

        A group has the same name at each level. Its messages there are accounted for as a group of their own.
        """
        keys = [(f"g{number}", level) for number in range(groups) for level in range(self.levels)]
        names = {key: f"{key[0]}/{key[1]}" for key in keys}
        firsts = {name: len(self.put.setdefault(name, [])) for name in names.values()}
        for level in range(self.levels):
            values = [
                {"group": name, "n": firsts[name] + n}
                for n in range(each)
                for (_, at), name in names.items()
                if at == level
            ]
            self.client.put_many(
                values,
                group=lambda value: value["group"].partition("/")[0],
                id=lambda value: f"line {value['n']}",
                priority=level,
            )
            for value in values:
                self.put[value["group"]].append(value["n"])

    @property
    def messages(self) -> int:
        return sum(map(len, self.put.values()))

    def done(self) -> int:
        """How many messages are among the results or the dead letters now, by the broker's count."""
        return self._waiting(RESULTS) + self.dead()

    def dead(self) -> int:
        """How many messages are dead letters now."""
        return sum(self._held(f"{task}--dead") for task in TASKS)

    def left(self) -> int:
        """How many messages wait or are in flight in the tasks' queues now."""
        return sum(map(self._waiting, TASKS))

    def settle(self, seconds: float) -> float:
        """Wait until every message is a result or a dead letter; return the seconds it took."""
        begun = time.monotonic()
        wait_for(
            lambda: self.done() >= self.messages, seconds, lambda: f"{self.done()} of {self.messages} done"
        )
        wait_for(lambda: self.left() == 0, 30, lambda: f"{self.left()} messages left in the tasks' queues")
        return time.monotonic() - begun

    def balance(self) -> Balance:
        """Account for every message. The pipe's processes have ended; results and dead letters are taken."""
        bodies = [body for queue in self._queues(RESULTS) for body in taken(self.broker, queue)]
        results = [json.loads(body)["value"] for body in bodies]
        letters = [letter.value for task in TASKS for letter in self.client.dead_letters(task)]
        found = Counter((value["group"], value["n"]) for value in results)
        dead = Counter((value["group"], value["n"]) for value in letters)
        wanted = {(group, n) for group, numbers in self.put.items() for n in numbers}
        twice = sum(count - 1 for count in (*found.values(), *dead.values()))
        return Balance(
            messages=len(wanted),
            lost=len(wanted - set(found) - set(dead)),
            both=len(set(found) & set(dead)),
            twice=max(twice, self._handed_on_twice()),
            disordered=len(self._disordered(results)),
            repeated=self.repeated(),
            dead=len(dead),
            left=self.left(),
        )

    def calls(self) -> Iterator[tuple[str, str, int]]:
        """The calls that began, as (task, group, number), in the order in which they began."""
        for line in self.journal.read_text().splitlines() if self.journal.exists() else ():
            task, group, number, *_ = line.split(" ")
            yield task, group, int(number)

    def repeated(self) -> int:
        calls = Counter(self.calls())
        return sum(calls.values()) - len(calls)

    def _held(self, task: str) -> int:
        depth = self.broker.depth(self._queue(task))
        return depth.waiting + depth.in_flight

    def _waiting(self, task: str) -> int:
        """How many messages are in a task's queues now."""
        depths = map(self.broker.depth, self._queues(task))
        return sum(depth.waiting + depth.in_flight for depth in depths)

    def _handed_on_twice(self) -> int:
        if self.witness is None:
            return 0
        stored = self.witness.stored()
        assert self._queue(RESULTS) in stored, f"the witness saw only {sorted(stored)}"
        return sum(len(copies) - 1 for ids in stored.values() for copies in ids.values())

    def _disordered(self, results: list[dict[str, Any]]) -> set[str]:
        """Groups whose results, or whose first calls in a task, are not in order."""
        ways: dict[tuple[str, str], list[int]] = defaultdict(list)
        for value in results:
            ways[RESULTS, value["group"]].append(value["n"])
        for task, group, number in dict.fromkeys(self.calls()):
            ways[task, group].append(number)
        return {group for (_, group), numbers in ways.items() if numbers != sorted(numbers)}

    def _queue(self, task: str) -> str:
        return f"{self.domain}--{task}.fifo"

    def _queues(self, task: str) -> list[str]:
        """The names of a task's queues, the lowest level first."""
        higher = [f"{self.domain}--{task}--p{level}.fifo" for level in range(1, self.levels)]
        return [self._queue(task), *higher]


def _ways(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "broker"}


def taken(broker: Any, queue: str) -> list[str]:
    """Take every message of a queue for good; return the bodies in the order in which they came."""
    bodies: list[str] = []
    while deliveries := broker.receive(queue, count=10, wait=0, lease=60, attempt=uuid.uuid4().hex):
        bodies += (delivery.body for delivery in deliveries)
        broker.ack(queue, [delivery.receipt for delivery in deliveries])
    return bodies


def wait_for(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Wait for what only looking can tell; ``what`` says how it stands when time is up."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        pause.wait(0.1)
