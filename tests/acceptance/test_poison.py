"""Nothing poisons the pipe: what cannot run ends as a dead letter with its reason, and the rest goes on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sqspipes import Broker, TaskClient
from sqspipes.brokers.base import OK, Entry
from tests.acceptance.support import drain_of

QUICK = {"backoff": 0.05, "lease": 5.0}


def echo(value: Any) -> Any:
    """Return what came, but for the values that are poison."""
    if value == "raise":
        raise ValueError("this one always raises")
    if value == "set":
        return {"rows": [1, {2, 3}]}
    if value == "large":
        return "x" * 2_000_000
    return value


def collect(value: Any) -> Any:
    """Take what came through."""
    return value


def test_poison_ends_as_dead_letters_and_the_rest_comes_through(
    domain: str, broker: Broker, pipe_broker: dict[str, Any]
) -> None:
    client = TaskClient(domain, broker=broker, **QUICK, retries=2)
    client.register_tasks([{"method": echo, "workers": 4}, {"method": collect, "workers": 4}])
    client.create_queues()
    noise = "".join(chr(code) for code in random.Random(1).randbytes(200) if code >= 0x20 and code != 0x7F)
    assert broker.send(client.queue_names[0], [Entry(noise, "noise", "noise")]) == [OK]
    client.put_many([*range(20), "raise", "set", "large", *range(20, 40)])
    with client, client.run(iterate=True, drain=drain_of(pipe_broker)) as results:
        assert sorted(results) == list(range(40))
        letters = {str(letter.value): letter for letter in client.dead_letters()}
        assert {value: letter.error_type for value, letter in letters.items()} == {
            noise: "DecodingError",
            "raise": "ValueError",
            "set": "EncodingError",
            "large": "TooLargeError",
        }
        assert letters["raise"].error == "this one always raises"
        assert letters["raise"].attempts == 3
        assert "always raises" in letters["raise"].traceback
        assert letters["set"].error == "result of echo is not JSON: $.rows[1] is a set"
        assert "result of echo is too large" in letters["large"].error


class Mendable:
    """A task that fails until it is mended."""

    def __init__(self) -> None:
        self.mended = False

    def __call__(self, value: int) -> int:
        if not self.mended:
            raise RuntimeError("not mended yet")
        return value


def test_letters_of_one_group_are_all_listed_and_redriven_in_order(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    task, drain = Mendable(), drain_of(pipe_broker)
    client = TaskClient(domain, **pipe_broker, **QUICK, retries=0)
    client.register_tasks([{"method": task, "name": "task"}])
    with client:
        client.put_many(range(25), group=lambda value: "one")
        for redrives in range(3):
            assert client.run(drain=drain).dead == 25
            letters = list(client.dead_letters("task"))
            assert sorted(letter.value for letter in letters) == list(range(25))
            assert {letter.redrives for letter in letters} == {redrives}
            assert {letter.group for letter in letters} == {"one"}
            assert client.redrive("task") == 25
        task.mended = True
        with client.run(iterate=True, drain=drain) as results:
            assert list(results) == list(range(25))
        assert list(client.dead_letters()) == []


def seconds_for_good(domain: str, arguments: dict[str, Any], poison: int, good: int) -> float:
    """Return the seconds until the good ones are through, of a pipe with so much poison among them."""
    through, pause = threading.Semaphore(0), threading.Event()

    def task(value: int) -> None:
        pause.wait(0.005)
        if value < 0:
            raise RuntimeError("poison")
        through.release()

    values = [*range(good), *(-1 - number for number in range(poison))]
    random.Random(7).shuffle(values)
    client = TaskClient(domain, **arguments, retries=3, lease=5.0).register_tasks(
        [{"method": task, "workers": 4}]
    )
    client.put_many(values)
    begun = time.monotonic()
    with client, client.start():
        for _ in range(good):
            assert through.acquire(timeout=60)
        return time.monotonic() - begun


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "broker_name", ["memory", "sqlite"]
)  # the emulator's own speed is not what is measured
def test_poison_among_good_ones_hardly_slows_them(
    domain: str, broker_name: str, broker_arguments: Any
) -> None:
    arguments = broker_arguments(broker_name)
    ratio = 10.0
    # The best of three: what else the machine does can come to either side.
    for attempt in range(3):
        if ratio > 1.5:
            clean = seconds_for_good(f"{domain}_clean{attempt}", arguments, poison=0, good=2_000)
            poisoned = seconds_for_good(f"{domain}_{attempt}", arguments, poison=200, good=2_000)
            ratio = min(ratio, poisoned / clean)
    assert ratio <= 1.5


def failing_for(seconds: float, through: threading.Semaphore) -> Callable[[int], None]:
    """A task whose every call fails for so long."""
    begun = time.monotonic()

    def task(value: int) -> None:
        if time.monotonic() < begun + seconds:
            raise ConnectionError("downstream is away")
        through.release()

    return task


@pytest.mark.a_minute
@pytest.mark.timeout(180)
def test_outage_of_a_minute_makes_no_dead_letters(domain: str, broker_arguments: Any) -> None:
    through = threading.Semaphore(0)
    client = TaskClient(domain, **broker_arguments("sqlite"))
    client.register_tasks([{"method": failing_for(60.0, through), "name": "task", "workers": 4}])
    client.put_many(range(200))
    with client, client.start() as run:
        # Once one call succeeds, all do: what has attempts left then is no dead letter any more.
        assert through.acquire(timeout=150)
        assert run.summary.failed > 20
        assert run.summary.dead == 0
