"""Several processes: all share the work, the dead come back, the living stop together."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sqspipes import OptionError, Summary, TaskClient
from tests.conftest import AWS, MakeBroker
from tests.integration.support import (
    ROOT,
    Seen,
    child_environment,
    drain_of,
    in_flight,
    piped,
    until,
    waiting,
)
from tests.servers import Proxy, error
from tests.valkey import Valkey

Arguments = Callable[[str], dict[str, Any]]
Outage = Callable[[], contextlib.AbstractContextManager[None]]
PROGRAM = Path(__file__).parent / "programs" / "many.py"

#: A task that any process can import.
TEXT = {"method": "builtins:str", "name": "text"}


class Many:
    """The program, which starts two processes, and the folder where they and the test leave each other notes."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._folder = folder

    def notes(self, task: str) -> list[tuple[str, int]]:
        """Return each call of a task: its value and the process."""
        journal = self._folder / "journal"
        lines = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
        return [(value, int(pid)) for name, value, pid in lines if name == task]

    def pids(self, count: int) -> list[int]:
        """Wait until so many processes have been at work; return them in the order of their first calls."""
        until(lambda: len({pid for _, pid in self.notes("work")}) >= count, 25)
        return list(dict.fromkeys(pid for _, pid in self.notes("work")))

    def open(self, pid: int | None = None) -> None:
        """Let the calls end that wait, in one process or in all."""
        (self._folder / ("gate" if pid is None else f"gate-{pid}")).touch()

    def end(self) -> list[str]:
        """Wait for the end of all processes: each has the pipe that this one reads; return what was printed."""
        assert self.process.stdout is not None
        printed = self.process.stdout.read().splitlines()
        self.process.wait()
        return printed

    @property
    def counts(self) -> dict[str, int]:
        """The calls done of each task, as they were read last."""
        try:
            found: dict[str, int] = json.loads((self._folder / "counts").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # not yet, or being written
            return {}
        return found

    @property
    def shown(self) -> list[str]:
        """The lines that were printed and shown."""
        return (self._folder / "shown").read_text().splitlines()

    @property
    def log(self) -> str:
        """What the log of all processes says."""
        return (self._folder / "log").read_text()


@contextlib.contextmanager
def many(folder: Path, domain: str, arguments: dict[str, Any], *tasks: str, **options: Any) -> Iterator[Many]:
    """Run the program in a group of its own; whatever happens, the group is gone after the block."""
    settings = {"folder": str(folder), "domain": domain, "arguments": arguments, "tasks": tasks, **options}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(settings)],
            env=child_environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        patience = threading.Timer(60, kill)
        patience.start()
        try:
            yield Many(folder, process)
        finally:
            patience.cancel()
            kill()


def filled(domain: str, arguments: dict[str, Any], *tasks: str, values: Any = range(20)) -> TaskClient:
    """Return a client that looks at the program's queues, with values in the first."""
    client = piped(domain, arguments, *({"name": name} for name in tasks))
    client.put_many(values)
    return client


@contextlib.contextmanager
def two_at_work(tmp_path: Path, domain: str, arguments: dict[str, Any]) -> Iterator[tuple[TaskClient, Many]]:
    """Yield a client and a program of two processes, each with a call that waits for its gate."""
    with filled(domain, arguments, "work") as client, many(tmp_path, domain, arguments, "work") as running:
        running.pids(2)
        yield client, running


@pytest.mark.parametrize("broker", ["sqlite", "sqs"])
def test_processes_share_the_work_and_drain(
    broker: str, broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments, tasks = broker_arguments(broker), ("work", "last")
    with (
        filled(domain, arguments, *tasks),
        many(tmp_path, domain, arguments, *tasks, drain=drain_of(arguments)) as running,
    ):
        running.pids(2)
        running.open()
        assert running.end() == ["drained 40"]
    every = {str(value): 1 for value in range(20)}
    assert [Counter(value for value, _ in running.notes(task)) for task in tasks] == [every, every]
    assert running.process.returncode == 0


@pytest.mark.parametrize("broker", ["sqlite", "sqs"])
def test_killed_process_is_replaced_and_nothing_is_lost(
    broker: str, broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments, tasks = broker_arguments(broker), ("work", "last")
    with (
        filled(domain, arguments, *tasks),
        many(tmp_path, domain, arguments, *tasks, drain=drain_of(arguments)) as running,
    ):
        os.kill(running.pids(2)[0], signal.SIGKILL)
        running.pids(3)
        running.open()
        assert running.end()[0].startswith("drained ")
    assert {value for value, _ in running.notes("last")} == {str(value) for value in range(20)}
    assert "process 1 died (signal 9), restarting it" in running.log


@pytest.mark.parametrize(("broker", "whole_group"), [("sqlite", False), ("sqlite", True), ("sqs", True)])
def test_sigterm_stops_all_in_good_order(
    broker: str, whole_group: bool, broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments(broker)
    with two_at_work(tmp_path, domain, arguments) as (client, running):
        os.killpg(running.process.pid, signal.SIGTERM) if whole_group else running.process.terminate()
        until(lambda: in_flight(client, "work") == 2)
        running.open()
        assert running.end() == ["signal 2"]
        assert (in_flight(client, "work"), waiting(client, "work")) == (0, 18)
    assert "died" not in running.log


def test_sigint_of_the_terminal_stops_all_and_is_raised_once(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with two_at_work(tmp_path, domain, arguments) as (client, running):
        os.killpg(running.process.pid, signal.SIGINT)
        until(lambda: in_flight(client, "work") == 2)
        running.open()
        assert running.end() == ["KeyboardInterrupt"]
        assert (in_flight(client, "work"), waiting(client, "work")) == (0, 18)
    assert "Traceback" not in running.log


def test_second_signal_waits_for_no_call(broker_arguments: Arguments, domain: str, tmp_path: Path) -> None:
    arguments = broker_arguments("sqlite")
    with two_at_work(tmp_path, domain, arguments) as (client, running):
        running.process.terminate()
        until(lambda: in_flight(client, "work") == 2)
        running.process.terminate()
        assert running.end() == ["signal 0"]


def test_processes_end_when_their_parent_is_killed(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with two_at_work(tmp_path, domain, arguments) as (client, running):
        running.process.kill()
        until(lambda: in_flight(client, "work") == 2)
        running.open()
        assert running.end() == []
        assert (in_flight(client, "work"), waiting(client, "work")) == (0, 18)


# Below a live view


def test_counts_are_those_of_all_processes(broker_arguments: Arguments, domain: str, tmp_path: Path) -> None:
    arguments, tasks = broker_arguments("sqlite"), ("work", "last")
    with (
        filled(domain, arguments, *tasks),
        many(tmp_path, domain, arguments, *tasks, shown=True, drain=True) as running,
    ):
        running.pids(2)
        running.open()
        assert running.end() == ["{'work': 20, 'last': 20}", "drained 40"]
    printed = [line for line in running.shown if line.startswith("printed")]
    assert sorted(printed) == sorted(f"printed {value}" for value in range(20))


def test_counts_of_a_killed_process_are_kept(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with (
        filled(domain, arguments, "work") as client,
        many(tmp_path, domain, arguments, "work", shown=True, drain=True) as running,
    ):
        killed = running.pids(2)[1]
        running.open(killed)
        until(lambda: running.counts.get("work", 0) > 0)
        told = running.counts["work"]
        os.kill(killed, signal.SIGKILL)
        client.put_many(range(20, 40))
        running.pids(3)
        until(lambda: running.counts.get("work", 0) >= told)
        running.open()
        counts, summary = running.end()
    reported = int(summary.removeprefix("drained "))
    assert int(re.sub(r"\D", "", counts)) >= reported + told


def test_processes_work_on_while_their_parent_is_held_up(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with (
        filled(domain, arguments, "work", values=range(200)) as client,
        many(tmp_path, domain, arguments, "work", shown=True, drain=True) as running,
    ):
        running.pids(2)
        running.process.send_signal(signal.SIGSTOP)
        running.open()
        until(lambda: waiting(client, "work") + in_flight(client, "work") == 0)
        running.process.send_signal(signal.SIGCONT)
        assert running.end() == ["{'work': 200}", "drained 200"]


def test_processes_print_for_themselves_when_their_parent_is_killed(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with (
        filled(domain, arguments, "work") as client,
        many(tmp_path, domain, arguments, "work", shown=True) as running,
    ):
        running.pids(2)
        running.process.kill()
        until(lambda: in_flight(client, "work") == 2)
        running.open()
        printed = running.end()
        assert sorted(printed) == sorted(f"printed {value}" for value, _ in running.notes("work"))
        assert (in_flight(client, "work"), waiting(client, "work")) == (0, 18)
    assert "failed, attempt" not in running.log


def test_process_that_is_stopped_from_outside_is_started_again(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with (
        filled(domain, arguments, "work") as client,
        many(tmp_path, domain, arguments, "work", drain=True) as running,
    ):
        stopped = running.pids(2)[1]
        until(lambda: waiting(client, "work") == 0)  # two processes hold them all
        os.kill(stopped, signal.SIGTERM)
        until(lambda: waiting(client, "work") > 0)  # it gave back what it had not begun
        running.open(stopped)
        running.pids(3)
        running.open()
        assert running.end() == ["drained 20"]
    assert "process 2 was stopped by a signal, restarting it" in running.log


@contextlib.contextmanager
def _outage_of_redis(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Outage]]:
    with contextlib.closing(Valkey()) as server:

        @contextlib.contextmanager
        def away() -> Iterator[None]:
            server.kill()
            yield
            server.restart()

        yield {"broker": server.url}, away


@contextlib.contextmanager
def _outage_of_sqs(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Outage]]:
    proxy: Proxy = request.getfixturevalue("proxy")

    @contextlib.contextmanager
    def away() -> Iterator[None]:
        proxy.always("", error(503, "ServiceUnavailable"))
        proxy.cut()
        yield
        proxy.clear()

    yield {"broker": "sqs://", "endpoint_url": proxy.url, **AWS}, away


@pytest.mark.parametrize(
    "outage",
    [
        pytest.param(_outage_of_redis, id="redis"),
        pytest.param(_outage_of_sqs, id="sqs", marks=pytest.mark.sqs),
    ],
)
def test_process_that_is_started_again_during_an_outage_waits_as_the_others_do(
    outage: Any, request: pytest.FixtureRequest, domain: str, tmp_path: Path
) -> None:
    with (
        outage(request) as (arguments, away),
        filled(domain, arguments, "work"),
        many(tmp_path, domain, arguments, "work", drain=drain_of(arguments)) as running,
    ):
        killed = running.pids(2)[1]
        with away():
            until(lambda: running.log.count("does not answer") == 2, 30)
            os.kill(killed, signal.SIGKILL)
            until(lambda: running.log.count("does not answer") == 3)
        running.open()
        assert running.end()[0].startswith("drained ")
    assert running.process.returncode == 0


def test_source_runs_in_one_process(broker_arguments: Arguments, domain: str, tmp_path: Path) -> None:
    with many(tmp_path, domain, broker_arguments("sqlite"), "tick", "work") as running:
        running.pids(2)
        running.process.terminate()
        running.open()
        assert running.end()[0].startswith("signal ")
    assert len({pid for _, pid in running.notes("tick")}) == 1


def test_source_alone_has_one_process(broker_arguments: Arguments, domain: str, tmp_path: Path) -> None:
    with many(tmp_path, domain, broker_arguments("sqlite"), "tick") as running:
        until(lambda: len(running.notes("tick")) > 2)
        running.process.terminate()
        running.end()
    assert "in 1 processes" in running.log


def test_error_of_one_process_stops_all_and_is_raised(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    arguments = broker_arguments("sqlite")
    with (
        filled(domain, arguments, "work", values=["bad"]),
        many(tmp_path, domain, arguments, "work", on_error="raise") as running,
    ):
        error, part, *cause = running.end()
    assert error.endswith(": ValueError: no luck")
    assert part == f"{error.split(':')[0]}: task"
    assert any("many.py" in line for line in cause)
    assert f"{domain} ends: {error}" in running.log.splitlines()
    assert f"{domain}: died, 0 calls done" in running.log


def test_main_module_without_a_guard_is_an_error_that_says_so(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    with many(tmp_path, domain, broker_arguments("sqlite"), "work", unguarded=True) as running:
        error, *_ = running.end()
    assert error.startswith("process 1 died (exit code 78) before it was ready")
    assert "if __name__ == '__main__':" in error
    assert "Traceback" not in running.log


def test_process_that_is_never_ready_is_an_error(
    broker_arguments: Arguments, domain: str, tmp_path: Path
) -> None:
    with many(tmp_path, domain, broker_arguments("sqlite"), "work", dies=True) as running:
        error, *_ = running.end()
    assert error.startswith("process 1 died (exit code 3) before it was ready")
    assert running.log.count("process 1 died (exit code 3), restarting it") == 2


def test_stop_from_another_thread_ends_the_run(broker_arguments: Arguments, domain: str) -> None:
    summaries: list[Summary] = []
    with piped(domain, broker_arguments("sqlite"), TEXT) as client:
        client.put(1)
        thread = threading.Thread(target=lambda: summaries.append(client.run(processes=1)))
        thread.start()
        until(lambda: client.status().levels[0].waiting + client.status().levels[0].in_flight == 0)
        with pytest.raises(OptionError, match="while a run goes on"):
            client.register_tasks([TEXT])
        client.stop()
        thread.join()
    assert summaries == [Summary("stopped", done=1, failed=0, dead=0)]


# What is refused


def refused(client: TaskClient, says: str, processes: Any = 2, **options: Any) -> None:
    """Assert that a run in processes is an error that says something, before anything is started."""
    with client, pytest.raises(OptionError, match=says):
        client.run(processes=processes, **options)
    assert not client._runs


@pytest.mark.parametrize("count", [0, 65, True, "2", 1.0])
def test_number_of_processes_is_checked(count: Any, broker_arguments: Arguments, domain: str) -> None:
    refused(piped(domain, broker_arguments("sqlite"), TEXT), "^processes is", count)


def test_results_are_not_iterated_over(broker_arguments: Arguments, domain: str) -> None:
    refused(piped(domain, broker_arguments("sqlite"), TEXT), "iterate is True.*one process", iterate=True)


async def prepare_later() -> None:
    """Nobody would await it."""


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (7, "^prepare is 7: allowed is"),
        (lambda: None, "^prepare is <fun"),
        (prepare_later, "^prepare is <fun.* allowed is a callable that is not async"),
    ],
)
def test_what_prepares_a_process_is_checked(
    prepare: Any, says: str, broker_arguments: Arguments, domain: str
) -> None:
    refused(piped(domain, broker_arguments("sqlite"), TEXT), says, prepare=prepare)


def test_queues_in_memory_are_refused(domain: str) -> None:
    refused(piped(domain, {"broker": "memory://"}, TEXT), "memory://")


def test_broker_that_is_an_object_is_refused(domain: str, make_broker: MakeBroker) -> None:
    refused(piped(domain, {"broker": make_broker("sqlite")}, TEXT), "give its URL")


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"method": lambda value: value, "name": "one"}, "task 'one': method .*package.module:function"),
        ({"method": Seen().take, "name": "one"}, "task 'one': method"),
        ({**TEXT, "backoff": lambda attempt, error: 1.0}, "task 'text': backoff .*top level"),
        ({**TEXT, "args": (threading.Lock(),)}, "task 'text': args"),
    ],
)
def test_what_cannot_go_to_another_process_is_named(
    task: dict[str, Any], says: str, broker_arguments: Arguments, domain: str
) -> None:
    refused(piped(domain, broker_arguments("sqlite"), task), says)


def test_options_that_cannot_go_to_another_process_are_named(
    broker_arguments: Arguments, domain: str
) -> None:
    arguments = broker_arguments("sqlite")
    refused(piped(domain, arguments, TEXT, json_default=lambda value: 0), "^json_default")
    refused(piped(domain, arguments, TEXT), "^priority", priority=lambda value: 0)


def test_main_module_that_nobody_can_import_is_an_error(broker_arguments: Arguments, domain: str) -> None:
    script = f"""
from sqspipes import OptionError, TaskClient
def work(value): pass
client = TaskClient({domain!r}, **{broker_arguments("sqlite")}).register_tasks([work])
try:
    client.run(processes=2)
except OptionError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, env=child_environment(), check=True, capture_output=True, text=True)
    assert "task 'work': method" in printed.stdout
    assert "__main__" in printed.stdout
