"""A broker that was used before a fork works in the child, and the parent's after it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]

_FORK = """
import json, os, sys, threading
from sqspipes.brokers import open_broker
from sqspipes.testing.broker_contract.steps import made, put, take
arguments, domain = json.loads(sys.argv[1]), sys.argv[2]
broker = open_broker(arguments.pop("broker"), **arguments)
(queue,) = made(broker, domain)
put(broker, queue, "parent")
held = take(broker, queue)
child = os.fork()
if child == 0:
    try:
        put(broker, queue, "child")
        assert take(broker, queue, wait=0) != []
        put(broker, queue, "again")
        broker.interrupt()
        broker.close()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(sorted(delivery.body for delivery in take(broker, queue, wait=1)))
broker.ack(queue, [delivery.receipt for delivery in held])
broker.close()
"""


def test_broker_used_before_a_fork_works_in_the_child(
    broker_name: str, broker_arguments: Callable[[str], dict[str, Any]], domain: str
) -> None:
    command = [sys.executable, "-c", _FORK, json.dumps(broker_arguments(broker_name)), domain]
    ended = subprocess.run(command, check=False, cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "['again']\n"), ended.stderr
