"""Interrupts: Ctrl-C at any line of a call leaves the client, and everybody else, able to go on."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sqspipes import BrokerError, Results, Run, TaskClient
from sqspipes.brokers.base import Broker
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.defaults import LONGEST_LEASE
from tests.conftest import TRANSPORTS
from tests.integration.support import PATIENCE, QUICK, drain_of, piped
from tests.interrupting import ctrl_c, interrupted_everywhere


class _TimeUpError(Exception):
    """What a handler of SIGALRM raises that puts an end to what takes too long."""


def _time_up() -> None:
    raise _TimeUpError


LOCAL = ("memory", "sqlite", "redis")


@pytest.fixture(params=LOCAL)
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker's name in turn, SQS where a test asks for it: there each request takes its time."""
    name: str = request.param
    return name


@pytest.fixture
def pipe_broker(broker_name: str, broker_arguments: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Keyword arguments of TaskClient for each broker; a file is written without waiting for its disk."""
    arguments = broker_arguments(broker_name)
    quick = "?synchronous=NORMAL" if broker_name == "sqlite" else ""
    return {**arguments, "broker": arguments["broker"] + quick}


@pytest.fixture
def clients(
    domain: str, pipe_broker: dict[str, Any]
) -> Iterator[tuple[TaskClient, TaskClient, Callable[[], list[Any]]]]:
    """Two clients of the same queues, one as another process would have it, and a function that empties them."""
    opened = contextlib.ExitStack()
    taken: list[Any] = []

    def client() -> TaskClient:
        made = TaskClient(domain, **{**QUICK, **pipe_broker}).register_tasks(
            [{"name": "task", "method": taken.append}]
        )
        return opened.enter_context(made)

    def emptied() -> list[Any]:
        one.run(drain=drain_of(pipe_broker), workers=4)
        return [value for value in taken if value != "warm"]

    with opened:
        one = client()
        other = one if pipe_broker["broker"] == "memory://" else client()
        for each in {id(each): each for each in (one, other)}.values():
            each.put("warm")
        yield one, other, emptied


# A socket that is dropped in the middle of a request is closed by its finalizer, which tells of it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("broker_name", "handler"),
    [*((name, ctrl_c) for name in (*LOCAL, *TRANSPORTS)), *((name, _time_up) for name in LOCAL)],
    indirect=["broker_name"],
)
def test_put_that_is_interrupted_leaves_everybody_able_to_put(
    clients: tuple[TaskClient, TaskClient, Callable[[], list[Any]]],
    pipe_broker: dict[str, Any],
    handler: Callable[[], None],
) -> None:
    one, other, emptied = clients
    expected: list[str] = []
    step = 1 if handler is ctrl_c and pipe_broker["broker"] != "sqs://" else 3
    for number in interrupted_everywhere(lambda: one.put("cut"), handler, step=step):
        for client, who in ((one, "same"), (other, "other")):
            client.put(f"{who} {number}", timeout=5)
            expected.append(f"{who} {number}")
    assert len(expected) > 20
    taken = Counter(emptied())
    cut = taken.pop("cut")
    assert taken == Counter(expected)
    assert 1 <= cut <= len(expected) // 2 + 1


def test_put_that_is_interrupted_and_repeated_with_its_id_is_there_once(
    clients: tuple[TaskClient, TaskClient, Callable[[], list[Any]]],
) -> None:
    one, _, emptied = clients
    ids = [str(number) for number in range(1, 2_000)]
    tried = iter(ids)
    expected: list[str] = []

    def put() -> None:
        expected.append(next(tried))
        one.put(expected[-1], id=expected[-1])

    for _ in interrupted_everywhere(put, step=3):
        one.put(expected[-1], id=expected[-1], timeout=5)
    assert sorted(emptied()) == sorted(expected)


def test_put_many_that_is_interrupted_leaves_everybody_able_to_put(
    clients: tuple[TaskClient, TaskClient, Callable[[], list[Any]]],
) -> None:
    one, other, emptied = clients
    expected: list[str] = []
    for number in interrupted_everywhere(lambda: one.put_many(["cut"] * 3), step=5):
        for client, who in ((one, "same"), (other, "other")):
            assert client.put_many([f"{who} {number} {i}" for i in range(3)], timeout=5) == 3
            expected += [f"{who} {number} {i}" for i in range(3)]
    taken = Counter(emptied())
    taken.pop("cut")
    assert taken == Counter(expected)


def test_status_that_is_interrupted_can_be_asked_for_again(
    clients: tuple[TaskClient, TaskClient, Callable[[], list[Any]]],
) -> None:
    one, other, _ = clients
    for _ in interrupted_everywhere(one.status, step=5):
        assert [len(client.status().levels) for client in (one, other)] == [1, 1]


def test_interrupt_lets_no_other_thread_of_the_process_wait(
    clients: tuple[TaskClient, TaskClient, Callable[[], list[Any]]],
) -> None:
    one, _, emptied = clients
    ended = threading.Event()
    expected: list[str] = []

    def put(name: int) -> None:
        for number in range(1_000_000):
            if ended.is_set():
                return
            one.put(f"{name} {number}", timeout=10)
            expected.append(f"{name} {number}")

    threads = [threading.Thread(target=put, args=(name,), daemon=True) for name in range(3)]
    for thread in threads:
        thread.start()
    for _ in interrupted_everywhere(lambda: one.put("cut")):
        pass
    ended.set()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    taken = Counter(emptied())
    taken.pop("cut")
    assert taken == Counter(expected)


class _Clock:
    """A broker's clock, which can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.mark.parametrize("name", ["memory", "sqlite", "redis"])
def test_redrive_that_is_interrupted_loses_and_doubles_no_letter(
    name: str, domain: str, broker_arguments: Callable[[str], dict[str, Any]]
) -> None:
    clock, url = _Clock(), broker_arguments(name)["broker"]
    broker: Broker = RedisBroker(url, clock=clock) if name == "redis" else SqliteBroker(url, clock=clock)

    def die(value: Any) -> None:
        raise ValueError(value)

    with TaskClient(domain, broker=broker, retries=0, lease=5) as client:
        client.register_tasks([{"name": "task", "method": die}])
        client.put_many(range(3))
        client.run(drain=True)
        for _ in interrupted_everywhere(client.redrive, step=41):
            clock.ahead += LONGEST_LEASE + 1  # what the redrive held comes back
            client.redrive()
            (level,) = client.status().levels
            assert (level.waiting, level.dead) == (3, 0)
            client.run(drain=True)
            assert client.status().levels[0].dead == 3
    broker.close()


# A signal may also come in a callback of Python's own, which nobody can be told of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signals_at_any_moment_leave_the_file_usable(
    domain: str, broker_arguments: Callable[[str], dict[str, Any]]
) -> None:
    taken: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ctrl_c())
    try:
        with TaskClient(domain, **broker_arguments("sqlite")) as client:
            client.register_tasks([{"name": "task", "method": taken.append}])
            run = client.start()
            for number in range(400):
                with contextlib.suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 * (number % 40 + 1))
                    try:
                        client.put("cut")
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                client.put(number, timeout=5)
            run.stop()
            run.wait(20)
            client.run(drain=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert sorted(value for value in taken if value != "cut") == list(range(400))


def test_handler_that_puts_in_the_middle_of_a_put_is_told_so(domain: str) -> None:
    taken: list[Any] = []
    said: set[str] = set()
    with TaskClient(domain, broker="memory://") as client:
        client.register_tasks([{"name": "task", "method": taken.append}])

        def put() -> None:
            try:
                client.put("handler", timeout=5)
            except BrokerError as error:
                said.add(str(error).partition(" was used by ")[2])
            else:
                said.add("put")

        puts = len(list(interrupted_everywhere(lambda: client.put("mine"), put))) + 1
        client.run(drain=True)
    assert said == {"put", "a signal's handler, in the middle of another request"}
    assert taken.count("mine") == puts


def _without_interrupts(action: Callable[[], Any]) -> Any:
    """Do a part of an action that is not interrupted."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        return action()
    finally:
        sys.settrace(trace)


@pytest.mark.parametrize("handler", [ctrl_c, _time_up])
def test_reader_that_is_interrupted_ends_its_run_and_loses_nothing(
    domain: str, pipe_broker: dict[str, Any], handler: Callable[[], None]
) -> None:
    put: list[str] = []
    reads: list[list[str]] = []  # of each run
    with piped(domain, pipe_broker, {"name": "task", "method": str}) as client:

        def begin() -> Results:
            new = [f"{len(reads)} {i}" for i in range(3)]
            client.put_many(new)
            put.extend(new)
            reads.append([])
            results = client.run("task", iterate=True)
            begun.append(results._run)
            return results

        def read_some() -> None:
            with _without_interrupts(begin) as results:
                for _ in range(2):
                    reads[-1].append(next(results))

        begun: list[Run] = []
        for _ in interrupted_everywhere(read_some, handler, step=3 if handler is ctrl_c else 7):
            gc.collect()  # a run whose reader is gone stops
            assert begun.pop().join(PATIENCE)
        assert len(reads) > 10
        rest = list(client.run("task", iterate=True, drain=drain_of(pipe_broker)))
    assert {value for read in reads for value in read} | set(rest) == set(put)
    asked_beyond = [value for read in reads for value in read[:-1]]
    assert not set(asked_beyond) & set(rest)
    assert len(asked_beyond) == len(set(asked_beyond))
