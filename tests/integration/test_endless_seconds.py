"""Seconds that no clock can wait for are refused when they are given; worked out by a task, they are a year."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sqspipes import OptionError, Retry, TaskClient
from sqspipes.brokers.base import Broker
from sqspipes.support import clocks
from tests.integration.outages import Between
from tests.integration.shell import Shell
from tests.integration.support import QUICK, Seen, passed, piped, until

#: Times that pass as numbers, and that no wait takes.
ENDLESS = [math.inf, 1e10, 10**400, 10**5000]
NO_TIMES = [math.nan, -1, "1", True]
MEMORY = {"broker": "memory://"}


def work(value: Any) -> None:
    """Take a value."""


def tick() -> None:
    """Be a source."""


OPTIONS: dict[str, Callable[[Any], object]] = {
    "backoff": lambda seconds: TaskClient("app", **MEMORY, backoff=seconds),
    "stop_timeout": lambda seconds: TaskClient("app", **MEMORY, stop_timeout=seconds),
    "control_interval": lambda seconds: TaskClient("app", **MEMORY, control_interval=seconds),
    "lease": lambda seconds: TaskClient("app", **MEMORY, lease=seconds),
    "linger": lambda seconds: TaskClient("app", **MEMORY, linger=seconds),
    "backoff of a task": lambda seconds: piped("app", MEMORY, {"method": work, "backoff": seconds}),
    "interval": lambda seconds: piped("app", MEMORY, {"method": tick, "interval": seconds}),
    "batch_wait": lambda seconds: piped("app", MEMORY, {"method": work, "batch": 2, "batch_wait": seconds}),
    "drain": lambda seconds: piped("app", MEMORY, work).run(drain=seconds),
    "stop_timeout of a run": lambda seconds: piped("app", MEMORY, work).start(stop_timeout=seconds),
}


def shown(value: Any) -> str:
    return f"{value!r:.8}" if not isinstance(value, int) or value < 10**9 else f"{len(hex(value))} digits"


@pytest.mark.parametrize("seconds", [*ENDLESS, *NO_TIMES[:3]], ids=shown)
@pytest.mark.parametrize("option", OPTIONS)
def test_option_names_the_bound_that_seconds_are_beyond(option: str, seconds: Any) -> None:
    with pytest.raises(
        OptionError, match=rf"{option.split()[0]} is .*: allowed is seconds, \S+ to \S+|'auto'"
    ):
        OPTIONS[option](seconds)


def test_year_is_not_too_long() -> None:
    year = 365 * 86_400
    client = piped("app", MEMORY, work, backoff=year, stop_timeout=year, control_interval=year)
    with client.start(drain=year) as run:
        assert not run.over


@pytest.mark.parametrize("rate", ["9" * 400 + "/s", "9" * 5000 + "/d", "inf/s", "1e10/s"], ids=shown)
def test_rate_without_end_is_refused(rate: str) -> None:
    with pytest.raises(OptionError, match="rate is"):
        piped("app", MEMORY, {"method": work, "rate": rate})


@pytest.mark.parametrize("seconds", ENDLESS, ids=shown)
def test_timeout_without_end_waits_for_ever(seconds: Any, domain: str) -> None:
    seen = Seen()
    with piped(domain, MEMORY, {"method": seen.take, "name": "take"}, output="out") as client:
        client.put("one", timeout=seconds)
        assert client.put_many(["two", "three"], timeout=seconds) == 2
        run = client.start()
        seen.wait(3)
        run.stop()
        assert run.wait(timeout=seconds).done == 3
        assert run.join(seconds)


@pytest.mark.parametrize("seconds", [math.nan, "1"], ids=shown)
def test_timeout_that_is_no_time_is_refused(seconds: Any, domain: str) -> None:
    waits: Sequence[Callable[[TaskClient], object]] = (
        lambda client: client.put(1, timeout=seconds),
        lambda client: client.put_many([1], timeout=seconds),
        lambda client: client.get_result(timeout=seconds),
        lambda client: client.results(timeout=seconds),
    )
    with piped(domain, MEMORY, work, output="out") as client:
        for wait in waits:
            with pytest.raises(OptionError, match="timeout is"):
                wait(client)
        with client.start() as run, pytest.raises(OptionError, match="timeout is nan"):
            run.wait(math.nan)


@pytest.mark.parametrize("seconds", [math.inf, 10**5000], ids=shown)
@pytest.mark.parametrize("way", ["retry", "backoff"])
def test_message_that_is_to_wait_without_end_is_kept_and_given_back(
    seconds: Any, way: str, domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen, calls = Seen(), itertools.count()

    def fail(value: str) -> None:
        if value == "fails":
            next(calls)
            raise Retry(seconds) if way == "retry" else ValueError
        seen.take(value)

    with piped(domain, pipe_broker, fail, backoff=lambda attempt, error: seconds) as client:
        client.put("fails")
        with client.start() as run:
            until(lambda: run.summary.failed == 1)
            client.put("good")
            seen.wait(1)
        assert (run.summary.failed, run.summary.dead, next(calls)) == (1, 0, 1)
        assert client.status().levels[0].dead == 0


@pytest.mark.parametrize("seconds", ENDLESS, ids=shown)
def test_source_whose_interval_has_no_end_makes_one_value(seconds: Any, domain: str) -> None:
    seen = Seen()
    source = {"method": lambda: "tick", "name": "tick", "interval": lambda: seconds}
    with piped(domain, MEMORY, source, seen.take) as client, client.start() as run:
        seen.wait(1)
        assert not run.over
    assert seen.values == ["tick"]


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e10"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "numbers", "--stop-timeout"), "stop_timeout is"),
        (("run", "numbers", "--drain", "--drain-seconds"), "drain is"),
        (("status", "numbers", "--watch", "--every"), "--every is"),
    ],
)
def test_command_line_names_the_bound(words: Sequence[str], said: str, seconds: str, shell: Shell) -> None:
    assert shell.refused(*words, seconds, code=1).startswith(f"Error: {said} {float(seconds)!r}: allowed")


# Leases at their longest


def test_extend_that_is_asked_late_at_the_longest_lease_ends_no_run(
    domain: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    between, boottime = Between(broker), clocks.boottime
    refused, go_on = threading.Event(), threading.Event()
    seen = Seen()

    def refuses(name: str, queue: str) -> bool:
        if name != "extend" or refused.is_set():
            return False
        # The request waits out an outage, until there is nothing left of the longest lease.
        monkeypatch.setattr(clocks, "boottime", lambda: boottime() + broker.limits.longest_lease)
        refused.set()
        return True

    def long(value: str) -> None:
        if value == "long":
            passed(refused)
            passed(go_on)
        seen.take(value)

    between.refuses = refuses
    with piped(domain, {"broker": between}, {"method": long, "workers": 2}, lease=QUICK["lease"]) as client:
        client.put("long")
        with client.start() as run:
            passed(refused)
            client.put("other")
            seen.wait(1)
            assert not run.over
            go_on.set()
            seen.wait(2)
    assert seen.values == ["other", "long"]
