"""Signals and forks, in processes of their own: SIGTERM returns, SIGINT raises, handlers are put back."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any

import pytest

from tests.integration.support import (
    ROOT,
    Seen,
    child_environment,
    in_flight,
    levels,
    piped,
    until,
    waiting,
)
from tests.servers import Proxy

Arguments = Callable[[str], dict[str, Any]]

#: Begins every child: a client whose task says what it is called with and waits for a line, as is put.
HEAD = """
import json, signal, sys, threading
from sqspipes import TaskClient
from tests.integration.support import until

arguments, domain = json.loads(sys.argv[1]), sys.argv[2]

def say(*words):
    print(*words, flush=True)

def work(value):
    say("called", value)
    if value == "wait":
        sys.stdin.readline()
    return value

def mine(number, frame):
    say("mine", number)

client = TaskClient(domain, lease=5.0, **arguments).register_tasks([{"method": work, "args": ()}])
"""

RUN = """
signal.signal(signal.SIGTERM, mine)
signal.signal(signal.SIGINT, mine)
try:
    summary = client.run()
    say(summary.reason, summary.done)
except KeyboardInterrupt:
    say("KeyboardInterrupt")
say(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGINT) is mine)
"""

ITERATE = """
signal.signal(signal.SIGTERM, mine)
try:
    for result in client.run(iterate=True):
        say("result", result)
        # In slices: CPython misses a signal that comes in the moment before a wait begins.
        for _ in range(0 if result == "go" else 600):
            threading.Event().wait(0.1)
    say("end of the loop")
except KeyboardInterrupt:
    say("KeyboardInterrupt")
say(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


class Child:
    """A process that runs a script, and its conversation with the test."""

    def __init__(self, process: subprocess.Popen[str], lines: IO[str], keyboard: IO[str]) -> None:
        self.process = process
        self._lines = lines
        self._keyboard = keyboard

    def line(self) -> str:
        """Return the next line that it says."""
        return self._lines.readline().strip()

    def rest(self) -> list[str]:
        """Return what it says until its end."""
        return self._lines.read().split("\n")[:-1]

    def type(self) -> None:
        """Let the call that waits for a line go on."""
        self._keyboard.write("\n")
        self._keyboard.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)


@contextlib.contextmanager
def child(script: str, arguments: dict[str, Any], domain: str) -> Iterator[Child]:
    """Run a script in a process of its own."""
    command = [sys.executable, "-c", HEAD + script, json.dumps(arguments), domain]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=child_environment(), cwd=ROOT, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        patience = threading.Timer(40, process.kill)
        patience.start()
        try:
            yield Child(process, process.stdout, process.stdin)
            assert process.wait() == 0
        finally:
            patience.cancel()
            process.kill()


@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_sigterm_stops_in_good_order_and_returns(
    broker: str, broker_arguments: Arguments, domain: str
) -> None:
    with child('client.put("wait")' + RUN, broker_arguments(broker), domain) as running:
        assert running.line() == "called wait"
        running.signal(signal.SIGTERM)
        running.type()
        assert running.rest() == ["signal 1", "True True"]


@pytest.mark.parametrize("broker", ["memory", "sqlite", "sqs"])
def test_sigint_stops_in_good_order_and_is_a_keyboard_interrupt(
    broker: str, broker_arguments: Arguments, domain: str
) -> None:
    with child('client.put("go")' + RUN, broker_arguments(broker), domain) as running:
        assert running.line() == "called go"
        running.signal(signal.SIGINT)
        assert running.rest() == ["KeyboardInterrupt", "True True"]


def test_sigint_waits_for_the_running_call(broker_arguments: Arguments, domain: str) -> None:
    arguments = broker_arguments("sqlite")
    with child('client.put("wait")' + RUN, arguments, domain) as running:
        assert running.line() == "called wait"
        running.signal(signal.SIGINT)
        running.type()
        assert running.rest() == ["KeyboardInterrupt", "True True"]
    with piped(domain, arguments, {"name": "work"}) as client:
        assert (waiting(client, "work"), in_flight(client, "work")) == (0, 0)


@pytest.mark.parametrize(
    ("broker", "number"),
    [
        ("memory", signal.SIGTERM),
        ("sqlite", signal.SIGTERM),
        ("sqlite", signal.SIGINT),
        ("redis", signal.SIGINT),
        ("sqs", signal.SIGTERM),
    ],
)
def test_signal_in_the_middle_of_a_takeover_stops_in_good_order(
    broker: str, number: signal.Signals, broker_arguments: Arguments, domain: str
) -> None:
    script = f"""
import os
from sqspipes.engine.crew import Crew
take_over = Crew._take_over
def interrupted(crew):
    os.kill(os.getpid(), {number:d})
    say("takes over")
    take_over(crew)
Crew._take_over = interrupted
client = TaskClient(domain, lease=5.0, **arguments).register_tasks([{{"method": work, "workers": 4}}])
client.put("wait")
"""
    left = "say([level.waiting + level.in_flight for level in client.status().levels])"
    with child(script + RUN + left, broker_arguments(broker), domain) as running:
        assert running.line() == "called wait"  # by the leader, which it keeps
        assert running.line() == "takes over"
        running.type()
        ended = "signal 1" if number is signal.SIGTERM else "KeyboardInterrupt"
        assert running.rest() == [ended, "True True", "[0]"]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_waits_for_nothing(
    first: signal.Signals, broker_arguments: Arguments, domain: str
) -> None:
    arguments = broker_arguments("sqlite")
    script = 'client.put("wait")' + RUN
    with child(script, arguments, domain) as running, piped(domain, arguments, {"name": "work"}) as client:
        assert running.line() == "called wait"
        client.put("more")
        until(lambda: in_flight(client, "work") == 2)
        running.signal(first)
        until(lambda: waiting(client, "work") == 1)  # what was not started is given back: the stop goes on
        running.signal(signal.SIGTERM)
        told = running.rest()
        assert told == ["signal 0" if first is signal.SIGTERM else "KeyboardInterrupt", "True True"]
        until(lambda: waiting(client, "work") == 2)


def test_second_sigterm_cuts_the_polls_of_sqs(broker_arguments: Arguments, domain: str, proxy: Proxy) -> None:
    arguments = {**broker_arguments("sqs"), "endpoint_url": proxy.url}
    with child('client.put("go")' + RUN, arguments, domain) as running:
        assert running.line() == "called go"
        until(lambda: proxy.counts["ReceiveMessage"] == 2)  # the poll for the next message is open
        running.signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(1)
        running.signal(signal.SIGTERM)
        assert running.process.wait(5) == 0
        assert running.rest() == ["signal 1", "True True"]


def test_handlers_are_put_back_after_an_error(broker_arguments: Arguments, domain: str) -> None:
    script = """
signal.signal(signal.SIGTERM, mine)
before = signal.getsignal(signal.SIGINT)
def broken(value):
    raise OSError("disk full")
client.register_tasks([{"method": broken, "on_error": "raise"}]).put(1)
try:
    client.run()
except OSError as error:
    say(error)
say(signal.getsignal(signal.SIGTERM) is mine, signal.getsignal(signal.SIGINT) is before)
"""
    with child(script, broker_arguments("memory"), domain) as running:
        assert running.rest() == ["disk full", "True True"]


def test_outside_the_main_thread_no_handlers_are_set(domain: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    during: list[Any] = []
    seen = Seen()
    with piped(domain, {"broker": "memory://"}, seen.take) as client:
        thread = threading.Thread(target=client.run)
        thread.start()
        client.put(1)
        seen.wait(1)
        during += [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        client.stop()
        thread.join()
    assert during == before


def test_run_in_the_background_sets_no_handlers(domain: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with piped(domain, {"broker": "memory://"}, Seen().take) as client, client.start():
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_sigterm_ends_a_loop_over_results(broker: str, broker_arguments: Arguments, domain: str) -> None:
    with child('client.put("go")' + ITERATE, broker_arguments(broker), domain) as running:
        assert running.line() == "called go"
        assert running.line() == "result go"
        running.signal(signal.SIGTERM)
        assert running.rest() == ["end of the loop", "True True"]


def test_sigint_leaves_a_loop_and_its_message_comes_back(broker_arguments: Arguments, domain: str) -> None:
    arguments = broker_arguments("sqlite")
    with child('client.put("stay")' + ITERATE, arguments, domain) as running:
        assert running.line() == "called stay"
        assert running.line() == "result stay"
        running.signal(signal.SIGINT)
        assert running.rest() == ["KeyboardInterrupt", "True True"]
    with piped(domain, arguments, {"name": "work"}) as client:
        until(lambda: waiting(client, "work") == 1)


def test_sigint_reaches_a_loop_that_waits_for_its_next_result(
    broker_arguments: Arguments, domain: str
) -> None:
    arguments, script = broker_arguments("sqlite"), 'client.put("go")' + ITERATE
    with child(script, arguments, domain) as running, piped(domain, arguments, {"name": "work"}) as client:
        assert running.line() == "called go"
        assert running.line() == "result go"
        until(lambda: levels(client, "work") == [0])  # it was acknowledged, as the next one was asked for
        running.signal(signal.SIGINT)
        assert running.rest() == ["KeyboardInterrupt", "True True"]


TWO = """
other = TaskClient(domain + "_other", broker="memory://").register_tasks([{"method": work, "args": ()}])
signal.signal(signal.SIGTERM, mine)
ones, others = client.run(iterate=True), other.run(iterate=True)
"""


def test_sigterm_ends_all_loops_of_the_main_thread(broker_arguments: Arguments, domain: str) -> None:
    script = """
signal.raise_signal(signal.SIGTERM)
say(list(others), list(ones))
say(signal.getsignal(signal.SIGTERM) is mine)
"""
    with child(TWO + script, broker_arguments("memory"), domain) as running:
        assert running.rest() == ["[] []", "True"]


def test_loop_that_ends_first_leaves_the_signals_to_the_other(
    broker_arguments: Arguments, domain: str
) -> None:
    script = """
ones.close()
signal.raise_signal(signal.SIGTERM)
say(list(others))
say(signal.getsignal(signal.SIGTERM) is mine)
"""
    with child(TWO + script, broker_arguments("memory"), domain) as running:
        assert running.rest() == ["[]", "True"]


FORK = """
import os
client.put("parent")
child = os.fork()
if child == 0:
    try:
        with client:
            client.put("child")
            values = []
            for value in client.run(iterate=True):
                values.append(value)
                if len(values) == 2:
                    break
        say("child", *sorted(values))
        os._exit(0)
    except BaseException as error:
        say("child", repr(error))
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
client.put("after")
say("waiting", client.status().levels[0].waiting)
client.close()
"""


@pytest.mark.parametrize("broker", ["sqlite", "sqs"])
def test_client_used_before_a_fork_works_on_both_sides(
    broker: str, broker_arguments: Arguments, domain: str
) -> None:
    with child(FORK, broker_arguments(broker), domain) as running:
        told = running.rest()
    assert "child child parent" in told
    assert told[-1] in ("waiting 1", "waiting 2")


FORK_DURING_A_RUN = """
import os
run = client.start()
client.put("before")
until(lambda: run.summary.done == 1)
child = os.fork()
if child == 0:
    try:
        client.stop()
        client.register_tasks([work])
        client.put("child")
        client.close()
        os._exit(0)
    except BaseException as error:
        say("child", repr(error))
        os._exit(1)
say("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
until(lambda: run.summary.done == 2)
run.stop()
say(run.wait(20).reason)
"""


@pytest.mark.parametrize("broker", ["sqlite", "sqs"])
def test_fork_during_a_run_leaves_the_run_to_its_parent(
    broker: str, broker_arguments: Arguments, domain: str
) -> None:
    with child(FORK_DURING_A_RUN, broker_arguments(broker), domain) as running:
        said = running.rest()
    # The child's message may be called before the parent has seen the child's end.
    assert (said[0], sorted(said[1:3]), said[3:]) == (
        "called before",
        ["called child", "code 0"],
        ["stopped"],
    )


def test_process_whose_main_thread_ends_is_not_held_by_a_run(
    broker_arguments: Arguments, domain: str
) -> None:
    script = """
run = client.start()
client.put("go")
until(lambda: run.summary.done == 1)
"""
    with child(script, broker_arguments("sqlite"), domain) as running:
        assert running.rest() == ["called go"]
