"""A part dies: the run ends in good order with an error that names the part and the cause, and nothing is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sqspipes import Broker, RunError, TaskClient
from sqspipes.engine.leases import Leases
from sqspipes.engine.loop import EngineLoop
from sqspipes.engine.outcomes import Outcomes
from sqspipes.engine.policy import CallPolicy
from sqspipes.engine.settling import Settling
from sqspipes.engine.source import Source
from sqspipes.engine.task_run import TaskRun
from sqspipes.messages.body import decode
from tests.chaos.faults import (
    Switch,
    UnexpectedError,
    breaking,
    faulty,
    no_thread,
)
from tests.chaos.ledger import wait_for
from tests.conftest import MakeBroker

VALUES = range(60)
STOP_TIMEOUT = 8.0


class Pipe:
    """Three tasks, and the queue of what came through; the first run of it fails."""

    def __init__(self, domain: str, broker: Broker, *, source: bool) -> None:
        self.domain, self.broker, self.source = domain, broker, source
        self.numbers = iter(VALUES)
        self.failed = False

    def generate(self) -> int | None:
        """Return the next number, none behind the last one."""
        return next(self.numbers, None)

    def take(self, value: int) -> int:
        """Pass a number on; number 7 fails at first, and is kept by its lease for a while."""
        if value == 7 and not self.failed:
            self.failed = True
            raise ValueError("seven fails once")
        return value

    def client(self, broker: Broker, *, interval: Any = 0.0) -> TaskClient:
        """Return a client of the pipe on a broker."""
        source = [{"method": self.generate, "interval": interval}] if self.source else []
        tasks = [
            *source,
            *({"method": self.take, "name": name, "workers": 2} for name in ("one", "two", "three")),
        ]
        client = TaskClient(self.domain, broker=broker, lease=5.0, backoff=3.0, stop_timeout=STOP_TIMEOUT)
        return client.register_tasks([*tasks, {"name": "results"}])

    def results(self) -> Counter[int]:
        """Run the pipe to its end, healthy; return what came through, in both runs."""
        client = self.client(self.broker)
        assert client.run(drain=True).dead == 0
        taken: list[Any] = []
        queue = client.get_task_by_name("results").queue(0)
        while some := self.broker.receive(queue, count=10, wait=0, lease=60, attempt="x"):
            taken += (decode(each).value for each in some)
        return Counter(taken)


def run(client: TaskClient) -> None:
    """Run it in the foreground."""
    client.run()


def start(client: TaskClient) -> None:
    """Run it in the background, and wait."""
    client.start().wait(30)


def iterate(client: TaskClient) -> None:
    """Run it for its results."""
    with client.run(iterate=True) as results:
        for _ in results:
            pass


WAYS = (run, start, iterate)

#: How each kind of part is made to raise, and the part that the error must name.
Provoke = Callable[[Pipe, Switch, pytest.MonkeyPatch], TaskClient]


def of_broker(method: str) -> Provoke:
    return lambda pipe, switch, patch: pipe.client(faulty(pipe.broker, method, switch))


def of_part(owner: type, method: str) -> Provoke:
    def provoke(pipe: Pipe, switch: Switch, patch: pytest.MonkeyPatch) -> TaskClient:
        breaking(patch, owner, method, switch)
        return pipe.client(pipe.broker)

    return provoke


def of_thread(begins: str) -> Provoke:
    def provoke(pipe: Pipe, switch: Switch, patch: pytest.MonkeyPatch) -> TaskClient:
        no_thread(patch, f"sqspipes {begins}", switch)
        return pipe.client(pipe.broker)

    return provoke


def no_thread_that_asks(pipe: Pipe, switch: Switch, patch: pytest.MonkeyPatch) -> TaskClient:
    no_thread(patch, "sqspipes exchange", switch)
    # Whatever broker somebody wrote is asked by threads, that in memory itself is not.
    return pipe.client(faulty(pipe.broker, "purge", Switch(1_000_000)))


def no_worker_for_calls_that_last(pipe: Pipe, switch: Switch, patch: pytest.MonkeyPatch) -> TaskClient:
    patch.setattr(CallPolicy, "is_short", lambda self, now: False)  # short calls need no worker
    return of_thread("worker")(pipe, switch, patch)


#: Per name: how it is provoked, at which call, what the named part contains, and whether the first task is a source.
#: Two full slices of each task may be all that there is of the numbers: the call must be one of the first.
PARTS: dict[str, tuple[Provoke, int, str, bool]] = {
    "receive": (of_broker("receive"), 5, "receive ", False),
    "send": (of_broker("send"), 4, "send ", False),
    "acknowledge": (of_broker("ack"), 4, "ack ", False),
    "extend": (of_broker("extend"), 1, "extend ", False),
    "admission": (of_part(TaskRun, "take_in"), 10, "task ", False),
    "scheduling": (of_part(TaskRun, "_begin_calls"), 6, "task ", False),
    "outcome": (of_part(Outcomes, "end"), 3, "task ", False),
    "settled": (of_part(TaskRun, "settled"), 3, "settling", False),
    "answers of sends": (of_part(Settling, "_sent"), 4, "send ", False),
    "timers": (of_part(Leases, "due"), 2, "run", False),
    "source": (of_part(Source, "_succeeded"), 5, "source ", True),
    "no worker": (no_worker_for_calls_that_last, 2, "", False),
    "no source": (of_thread("source"), 1, "run", True),
    "no exchange": (no_thread_that_asks, 3, "", False),
    "no leader": (of_thread("crew"), 1, "run", False),
    "no watcher": (of_thread("crew"), 2, "", False),
    "turn": (of_part(EngineLoop, "turn"), 8, "run", False),
}


@contextmanager
def feeding(pipe: Pipe) -> Iterator[None]:
    """Put the numbers, if no source does, and check that no thread of the run is left."""
    before = set(threading.enumerate())
    if not pipe.source:
        pipe.client(pipe.broker).put_many(VALUES)
    yield

    def left() -> list[str]:
        # A thread that is just being started is listed too, and cannot be joined yet.
        return [each.name for each in threading.enumerate() if each not in before and "sqspipes" in each.name]

    wait_for(lambda: not left(), 20, lambda: f"threads of the run are left: {left()}")


def died(pipe: Pipe, provoke: Provoke, at: int, way: Callable[[TaskClient], None]) -> RunError:
    """Run the pipe until its part dies; return the error that the caller got."""
    with pytest.MonkeyPatch.context() as patch, feeding(pipe):
        switch = Switch(at)
        client = provoke(pipe, switch, patch)
        done = threading.Event()
        with pytest.raises(RunError) as caught:
            way(client)
        done.set()
        assert switch.raised.is_set()
    return caught.value


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", PARTS)
def test_part_that_dies_ends_the_run_with_its_name_and_cause_and_loses_nothing(
    chaos: Any, make_broker: MakeBroker, domain: str, name: str
) -> None:
    provoke, at, part, source = PARTS[name]
    ways = WAYS if chaos.full else chaos.random.sample(WAYS, 1)
    for number, way in enumerate(ways):
        pipe = Pipe(f"{domain}_{number}", make_broker("memory"), source=source)
        begun = time.monotonic()
        error = died(pipe, provoke, at, way)
        seconds = time.monotonic() - begun
        assert error.part.startswith(part)
        assert isinstance(error.__cause__, UnexpectedError)
        assert error.part in str(error)
        assert "nobody expected this" in str(error)
        assert seconds < STOP_TIMEOUT  # no phase of the stop waits for what never comes
        results = pipe.results()
        assert set(VALUES) - set(results) <= (set(VALUES[:4]) if source else set())
        assert not +(results - Counter(VALUES))
        lost = len(set(VALUES) - set(results))
        chaos.report(
            scenario=f"10 {name} dies", broker="memory", messages=len(VALUES), faults=1,
            lost=lost, twice=sum((results - Counter(VALUES)).values()), seconds=round(seconds, 1),
        )  # fmt: skip
