"""Forks and the end of the main thread: a process that a task forks is a process like any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.engine.living import Living
from tests.integration.support import ROOT


def _said(program: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.split()


_TASK = """
import multiprocessing, os, signal, sys, threading
from sqspipes import TaskClient

def work(number):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    def wait():
        if {late}:
            begun.set()
        threading.Event().wait(50)
    child = fork.Process(target=wait, daemon=True)
    child.start()
    if {late}:
        begun.wait(50)
    # Again and again: Python does not see a signal that comes in the moment before a wait begins.
    for _ in range(100):
        os.kill(child.pid, {number})
        child.join(0.5)
        if child.exitcode is not None:
            break
    os.write(1, b"%d\\n" % child.exitcode)
    child.kill()

client = TaskClient("forks", broker=sys.argv[1], retries=0).register_tasks([{{"name": "work", "method": work}}])
if __name__ == "__main__":
    client.put(1)
"""


@pytest.mark.parametrize("late", [True, False], ids=["later", "at once"])
def test_process_that_a_task_forks_can_be_terminated(late: bool) -> None:
    program = _TASK.format(late=late, number="signal.SIGTERM") + "    client.run(drain=True)\n"
    assert _said(program, "memory://") == ["-15"]


def test_process_that_a_task_forks_can_be_interrupted() -> None:
    program = _TASK.format(late=True, number="signal.SIGINT") + "    client.run(drain=True)\n"
    assert _said(program, "memory://") == ["1"]  # KeyboardInterrupt, as everywhere


def test_pool_of_a_task_ends_with_its_block() -> None:
    program = """
import multiprocessing
from sqspipes import TaskClient
def work(number):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.apply(abs, (number,)))
client = TaskClient("forks", broker="memory://").register_tasks([{"name": "work", "method": work}])
client.put(-3)
client.run(drain=True)
"""
    assert _said(program) == ["3"]


@pytest.mark.parametrize("late", [True, False], ids=["later", "at once"])
def test_process_that_a_task_of_several_processes_forks_can_be_terminated(late: bool, tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(
        _TASK.format(late=late, number="signal.SIGTERM") + "    client.run(drain=True, processes=1)\n"
    )
    command = [sys.executable, str(tmp_path / "forking.py"), f"sqlite:///{tmp_path}/pipe.db"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.returncode) == (["-15"], 0), done.stderr[-2_000:]


@pytest.mark.parametrize("late", [True, False], ids=["later", "at once"])
def test_process_that_a_task_of_the_command_forks_can_be_terminated(late: bool, tmp_path: Path) -> None:
    program = _TASK.format(late=late, number="signal.SIGTERM").replace("sys.argv[1]", '"memory://"')
    (tmp_path / "pipelines.py").write_text(program.partition("if __name__")[0] + "client.put(1)\n")
    command = [sys.executable, "-m", "sqspipes", "run", "client", "--drain"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "-15" in done.stdout.split() + done.stderr.split(), done.stderr[-2_000:]


def test_child_of_a_command_that_runs_no_python_can_be_terminated(tmp_path: Path) -> None:
    (tmp_path / "pipelines.py").write_text("""
import os, signal
from sqspipes import TaskClient

def work(number):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b".")
        sum(range(10**11))  # minutes in which no handler of Python's runs
        os._exit(0)
    os.read(reader, 1)
    os.kill(child, signal.SIGTERM)
    os.write(1, b"%d\\n" % os.waitpid(child, 0)[1])

client = TaskClient("forks", broker="memory://").register_tasks([work])
client.put(1)
""")
    command = [sys.executable, "-m", "sqspipes", "run", "client", "--drain"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "15" in done.stdout.split() + done.stderr.split(), done.stderr[-2_000:]


_BLOCK = """
import os, sys, threading
from sqspipes import TaskClient
taken = threading.Event()
def work(value):
    taken.set()
    return value
client = TaskClient("forks", broker=sys.argv[1], output="out").register_tasks([{"name": "work", "method": work}])
client.create_queues()
with OPENED as opened:
    pid = os.fork()
    if not pid:
        raise SystemExit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    client.put(1)
    if OPENED_IS_RUN:
        taken.wait(20)
        print(client.is_running)
"""


@pytest.mark.parametrize(
    "opened", ["client.start()", "client.run(iterate=True)", "client.results()", "client"]
)
@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_fork_inside_a_block_leaves_the_run_to_the_parent(
    opened: str, broker: str, broker_arguments: Callable[[str], dict[str, Any]]
) -> None:
    is_run = opened == "client.start()"
    program = _BLOCK.replace("OPENED_IS_RUN", str(is_run)).replace("OPENED", opened)
    expected = ["3", "True"] if is_run else ["3"]
    assert _said(program, broker_arguments(broker)["broker"]) == expected


_READS = """
import os, signal, sys
from sqspipes import TaskClient
def work(value):
    return value
client = TaskClient("forks", broker=sys.argv[1]).register_tasks([{"name": "work", "method": work}])
client.put_many([1, 2, 3])
pid, read = None, 0
for result in client.run(iterate=True, drain=True):
    read += 1
    if pid is None:
        pid = os.fork()
        signal.alarm(0 if pid else 20)
if not pid:
    raise SystemExit(read)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), read)
"""


@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_child_that_goes_on_to_read_results_reads_no_more(
    broker: str, broker_arguments: Callable[[str], dict[str, Any]]
) -> None:
    assert _said(_READS, broker_arguments(broker)["broker"]) == ["1", "3"]


_OUTLIVES = """
import json, sys, threading
from sqspipes import TaskClient
def fail(value):
    raise ValueError(value)
options = json.loads(sys.argv[1])
tasks = [{"name": name, "method": fail} for name in "abc"]
client = TaskClient(sys.argv[2], retries=0, control_interval=None, **options).register_tasks(tasks)
def work():
    threading.main_thread().join()
    client.put("value")
    run = client.start("a")
    while not run.summary.dead:
        threading.Event().wait(0.05)
    run.stop()
    run.wait(20)
    print(len(list(client.dead_letters("a"))), client.redrive("a"), len(client.status().levels), flush=True)
    client.close()
threading.Thread(target=work, daemon=False).start()
"""


def test_client_works_after_the_main_thread_has_ended(domain: str, pipe_broker: dict[str, Any]) -> None:
    assert _said(_OUTLIVES, json.dumps(pipe_broker), domain) == ["1", "1", "3"]


def test_runs_can_be_looked_at_while_one_is_made() -> None:
    class Run:
        pass

    runs = [Run() for _ in range(3)]
    living: Living[Run] = Living()
    for run in runs[:2]:
        living.add(run)
    found = []
    for run in living:
        found.append(run)
        living.add(runs[2])
    assert found == runs[:2]
    assert list(living) == [*runs[:2], runs[2], runs[2]]
    del runs[1], found, run
    assert list(living) == [runs[0], runs[1], runs[1]]
    assert (len(living), bool(Living())) == (3, False)


def test_client_can_be_asked_while_other_threads_start_runs() -> None:
    client = TaskClient("forks", broker="memory://").register_tasks([{"name": "work", "method": print}])
    client.create_queues()
    errors: list[BaseException] = []
    ended = threading.Event()

    def ask() -> None:
        try:
            while not ended.is_set():
                _ = client.is_running
                client.stop()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(20):
        client.start().stop()
    ended.set()
    thread.join(20)
    client.close()
    assert errors == []
