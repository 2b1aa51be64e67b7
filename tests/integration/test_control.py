"""The control word: pause, resume and stop, heeded by every running process."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqspipes import (
    Broker,
    BrokerUnavailableError,
    CredentialsError,
    OptionError,
    QueueMissingError,
    Run,
    RunError,
    TaskClient,
)
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.engine import dues
from tests.conftest import AWS
from tests.integration.support import PATIENCE, Seen, in_flight, passed, piped, until, waiting
from tests.integration.test_processes import two_at_work
from tests.servers import Proxy, error

MEMORY = {"broker": "memory://"}
SQS = {"broker": "sqs://", **AWS}

#: Seconds between two looks at the control word.
SOON = 0.2

NEAR = pytest.mark.parametrize("broker_name", ["memory", "sqlite", "redis"], indirect=True)


class Looking(SqliteBroker):
    """A broker in memory that counts the looks at the control word, and may have something come in between."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.looks = 0
        self.between: Callable[[], object] = lambda: None

    def tags(self, queue: str) -> dict[str, str]:
        """Return a queue's tags."""
        self.looks += 1
        self.between()
        return super().tags(queue)

    def wait(self, looks: int) -> None:
        """Wait until there were so many looks more: what was said has been heeded, what may happen has happened."""
        wanted = self.looks + looks
        until(lambda: self.looks >= wanted)


@pytest.fixture
def looking() -> Looking:
    """A broker in memory that counts looks."""
    return Looking()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, from INFO on."""
    caplog.set_level(logging.INFO, logger="sqspipes")
    return caplog


def same(value: Any) -> Any:
    """Hand a value on."""
    return value


def controlled(domain: str, broker: Any, *tasks: Any, **options: Any) -> TaskClient:
    """Return a client whose runs look often."""
    arguments = broker if isinstance(broker, dict) else {"broker": broker}
    return piped(domain, arguments, *tasks, **{"control_interval": SOON, **options})


def said(log: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until the log says something."""
    until(lambda: any(text in message for message in log.messages))


# Pause and resume


def test_task_that_was_paused_before_the_run_takes_nothing_in_until_it_is_resumed(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    held, free = Seen(), Seen()
    tasks = [{"method": held.take, "name": "held"}, {"method": free.take, "name": "free"}]
    with controlled(domain, pipe_broker, *tasks) as client:
        client.put_many([1, 2, 3])
        client.pause("held")
        with client.start():
            client.put("through", task="free")
            free.wait(1)
            assert held.values == []
            client.resume("held")
            assert sorted(held.wait(3)) == [1, 2, 3]
    heard = [message for message in log.messages if message.startswith("held is")]
    assert heard == ["held is paused, and takes nothing in until it is resumed", "held is resumed"]


def test_run_whose_task_is_paused_does_not_say_that_it_waits_for_a_put(
    domain: str, looking: Looking, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dues, "QUIET_SECONDS", 0.3)
    with controlled(domain, looking, same) as client:
        client.create_queues()
        client.pause()
        with client.start():
            looking.wait(4)
    assert "waiting for put()" not in log.messages


@NEAR
def test_pause_of_a_running_task_ends_its_open_poll(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    held, free = Seen(), Seen()
    tasks = [{"method": held.take, "name": "held"}, {"method": free.take, "name": "free"}]
    with controlled(domain, pipe_broker, *tasks) as client, client.start():
        client.put(1)
        held.wait(1)
        client.pause("held")
        said(log, "held is paused")
        client.put(2)
        client.put("through", task="free")
        free.wait(1)
        assert held.values == [1]
        client.resume()
        assert held.wait(2) == [1, 2]


def test_poll_that_is_open_on_sqs_still_brings_what_is_called(
    domain: str, broker_arguments: Any, log: pytest.LogCaptureFixture
) -> None:
    held, free = Seen(), Seen()
    tasks = [{"method": held.take, "name": "held"}, {"method": free.take, "name": "free"}]
    with controlled(domain, broker_arguments("sqs"), *tasks) as client, client.start():
        client.put(1)
        held.wait(1)
        until(lambda: client.status().levels[0].in_flight == 0)
        client.pause("held")
        said(log, "held is paused")
        client.put(2)
        held.wait(2)
        client.put(3)
        client.put("through", task="free")
        free.wait(1)
        assert held.values == [1, 2]
        assert waiting(client, "held") == 1


def test_call_that_runs_when_its_task_is_paused_is_finished(
    domain: str, looking: Looking, log: pytest.LogCaptureFixture
) -> None:
    inside, gate = threading.Event(), threading.Event()

    def work(value: int) -> None:
        inside.set()
        passed(gate)

    with controlled(domain, looking, work) as client, client.start() as run:
        client.put(1)
        passed(inside)
        client.pause()
        said(log, "work is paused")
        gate.set()
        until(lambda: run.summary.done == 1 and in_flight(client, "work") == 0)


@pytest.mark.parametrize("kind", ["function", "generator"])
def test_paused_source_is_asked_for_no_value(
    kind: str, domain: str, looking: Looking, log: pytest.LogCaptureFixture
) -> None:
    made = itertools.count()

    def function() -> int:
        return next(made)

    def generator() -> Any:
        yield from made

    seen = Seen()
    source = {"method": function if kind == "function" else generator, "name": "source", "interval": 0.01}
    with controlled(domain, looking, source, seen.take) as client, client.start():
        seen.wait(3)
        client.pause("source")
        said(log, "source is paused")
        looking.wait(1)
        so_far = len(seen.values)
        looking.wait(2)
        assert len(seen.values) <= so_far + 1
        client.resume("source")
        seen.wait(so_far + 10)


def test_draining_run_waits_for_a_paused_task_and_says_so(
    domain: str, looking: Looking, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    with controlled(domain, looking, seen.take) as client:
        client.put(1)
        client.pause()
        run = client.start(drain=True)
        looking.wait(3)
        assert not run.over
        said(log, "take is paused, and takes nothing in until it is resumed; the drain waits")
        client.resume()
        assert run.wait(PATIENCE).reason == "drained"
    assert seen.values == [1]


def test_status_tells_which_tasks_are_paused(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, same, {"method": same, "name": "second"}) as client:
        assert client.status().paused == {}
        client.pause("second")
        assert set(client.status().paused) == {"second"}
        client.pause()
        assert set(client.status().paused) == {"same", "second"}
        client.resume()
        assert client.status().paused == {}


# Stop


def test_stop_ends_the_runs_of_other_clients(
    domain: str, broker: Broker, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    shared = {"broker": broker}
    with controlled(domain, shared, seen.take) as here, controlled(domain, shared, seen.take) as there:
        run = there.start()
        here.put(1)
        seen.wait(1)
        here.stop_all()
        assert run.wait(PATIENCE).reason == "stopped"
        assert in_flight(here, "take") == 0
    assert f"{domain} is told to stop by the control word" in log.messages


def test_stop_that_is_older_than_the_start_does_nothing(domain: str, looking: Looking) -> None:
    seen = Seen()
    with controlled(domain, looking, seen.take) as client:
        client.create_queues()
        client.stop_all()
        with client.start() as run:
            looking.wait(3)
            client.put(1)
            seen.wait(1)
            assert not run.over
            client.stop_all()
            assert run.wait(PATIENCE).reason == "stopped"


def test_stop_ends_a_loop_over_results(domain: str, looking: Looking) -> None:
    with controlled(domain, looking, same) as client:
        client.put_many(range(3))
        results = client.run(iterate=True)
        assert sorted(next(results) for _ in range(3)) == [0, 1, 2]
        client.stop_all()
        assert list(results) == []


@pytest.mark.parametrize("broker", ["sqlite", "sqs"])
def test_stop_ends_all_processes_of_a_run_and_none_is_started_again(
    broker: str, broker_arguments: Any, domain: str, tmp_path: Path
) -> None:
    arguments = {**broker_arguments(broker), "control_interval": SOON}
    with two_at_work(tmp_path, domain, arguments) as (client, running):
        client.stop_all()
        until(lambda: "is told to stop by the control word" in running.log)
        until(lambda: in_flight(client, "work") == 2)
        running.open()
        assert running.end() == ["stopped 2"]
        assert (in_flight(client, "work"), waiting(client, "work")) == (0, 18)
    assert "restarting" not in running.log
    assert "died" not in running.log


# What it costs, and what goes wrong


def test_run_looks_once_an_interval(domain: str, proxy: Proxy) -> None:
    with controlled(domain, SQS, same, endpoint_url=proxy.url, control_interval=0.5) as client:
        client.create_queues()
        assert proxy.counts["ListQueueTags"] == 0
        with client.start():
            until(lambda: proxy.counts["ListQueueTags"] == 4)
    times = [request.at for request in proxy.requests("ListQueueTags")]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 0.45


def test_run_without_an_interval_never_looks(domain: str, proxy: Proxy) -> None:
    seen = Seen()
    with controlled(domain, SQS, seen.take, endpoint_url=proxy.url, control_interval=None) as client:
        client.put(1)
        client.pause()
        with client.start():
            seen.wait(1)
    assert proxy.counts["ListQueueTags"] == 0


def test_status_costs_one_request_for_the_control_word(domain: str, proxy: Proxy) -> None:
    tasks = [{"method": same, "priorities": 2}, {"method": same, "name": "second"}]
    with piped(domain, SQS, *tasks, endpoint_url=proxy.url) as client:
        client.status()
    assert proxy.counts["ListQueueTags"] == 1


def test_interval_is_the_brokers_own_if_nothing_is_said(domain: str) -> None:
    assert TaskClient(domain, **SQS).control_interval == 60.0
    assert TaskClient(domain, **MEMORY).control_interval == 2.0
    assert TaskClient(domain, **MEMORY, control_interval=7).control_interval == 7.0


def test_look_that_fails_is_told_once_and_is_no_outage(
    domain: str, proxy: Proxy, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    proxy.always("ListQueueTags", error(503, "ServiceUnavailable"))
    with controlled(domain, SQS, seen.take, endpoint_url=proxy.url) as client, client.start() as run:
        until(lambda: proxy.counts["ListQueueTags"] >= 5)
        client.put(1)
        seen.wait(1)
        assert run.outage is None
        proxy.clear()
        said(log, "can be read again")
    lines = [record for record in log.records if "control word" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.WARNING, logging.INFO]
    assert "pause, resume and stop do not reach this process" in lines[0].getMessage()


def test_single_look_that_fails_is_not_told(domain: str, proxy: Proxy, log: pytest.LogCaptureFixture) -> None:
    proxy.plan("ListQueueTags", error(503, "ServiceUnavailable"))
    with controlled(domain, SQS, same, endpoint_url=proxy.url) as client, client.start():
        until(lambda: proxy.counts["ListQueueTags"] >= 3)
    assert not [message for message in log.messages if "control word" in message]


class Unseen(Looking):
    """A broker whose first look at the control word fails."""

    def tags(self, queue: str) -> dict[str, str]:
        self.looks += 1
        if self.looks == 1:
            self.between()
            raise BrokerUnavailableError("not now")
        return SqliteBroker.tags(self, queue)


def test_stop_reaches_a_run_whose_first_look_failed(domain: str) -> None:
    broker = Unseen()
    with controlled(domain, broker, same) as client, controlled(domain, broker, same) as other:
        client.create_queues()
        broker.between = other.stop_all
        assert client.start().wait(PATIENCE).reason == "stopped"


def test_stop_that_is_older_than_a_run_whose_first_look_failed_does_nothing(domain: str) -> None:
    broker = Unseen()
    with controlled(domain, broker, same) as client:
        client.create_queues()
        client.stop_all()
        with client.start() as run:
            broker.wait(3)
            assert run.live
            client.stop_all()
            run.wait(PATIENCE)


def test_token_of_an_older_version_that_was_not_seen_before_does_nothing(domain: str) -> None:
    broker = Unseen()
    with controlled(domain, broker, same) as client:
        client.create_queues()
        broker.tag(client.tasks[0].queue(0), {"sqspipes:stop": "c0ffee"})
        with client.start() as run:
            broker.wait(3)
            assert run.live


def test_command_without_the_right_names_it_and_status_goes_on_without(domain: str, proxy: Proxy) -> None:
    for action in ("ListQueueTags", "TagQueue", "UntagQueue"):
        proxy.always(action, error(403, "AccessDenied"))
    with piped(domain, SQS, same, endpoint_url=proxy.url) as client:
        client.create_queues()
        with pytest.raises(CredentialsError, match="sqs:TagQueue"):
            client.pause()
        with pytest.raises(CredentialsError, match="sqs:UntagQueue"):
            client.resume()
        assert client.status().paused == {}


def test_look_without_an_answer_holds_up_neither_the_start_nor_the_stop(
    domain: str, looking: Looking
) -> None:
    seen, gate = Seen(), threading.Event()
    looking.between = lambda: gate.wait(PATIENCE)
    with controlled(domain, looking, seen.take) as client:
        run = client.start()
        client.put(1)
        seen.wait(1, timeout=5)
        began = time.monotonic()
        run.stop()
        run.wait(PATIENCE)
        assert time.monotonic() - began < 2
        gate.set()


def test_death_of_the_part_that_looks_ends_the_run_with_an_error(domain: str, looking: Looking) -> None:
    def die() -> None:
        raise ZeroDivisionError

    with controlled(domain, looking, same) as client:
        run: Run = client.start()
        looking.between = die
        with pytest.raises(RunError, match="control died: ZeroDivisionError") as caught:
            run.wait(PATIENCE)
    assert caught.value.part == "control"


# What is refused


@pytest.mark.parametrize("interval", [0, 0.05, -1, "often", True])
def test_interval_that_is_too_short_is_refused(interval: Any, domain: str) -> None:
    with pytest.raises(OptionError, match="control_interval"):
        TaskClient(domain, **MEMORY, control_interval=interval)


def test_command_for_an_unknown_task_is_refused(domain: str) -> None:
    with (
        piped(domain, MEMORY, same) as client,
        pytest.raises(OptionError, match=r"'sane' is not registered.*same"),
    ):
        client.pause("sane")


def test_client_without_a_queue_has_no_control_word(domain: str) -> None:
    with (
        piped(domain, MEMORY, {"method": lambda: 1, "name": "tick", "interval": 1}) as client,
        pytest.raises(OptionError, match="no task of this client has a queue"),
    ):
        client.stop_all()


def test_command_makes_no_queue(domain: str, pipe_broker: dict[str, Any]) -> None:
    with (
        piped(domain, pipe_broker, same) as client,
        pytest.raises(QueueMissingError, match=f"{domain}--same"),
    ):
        client.pause()
