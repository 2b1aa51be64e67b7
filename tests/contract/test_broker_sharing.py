"""What brokers of several threads, processes and lifetimes share is the store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import MakeBroker
from tests.contract.steps import (
    PATIENCE,
    bodies,
    in_thread,
    made,
    moment,
    put,
    take,
    take_one,
)

_ROOT = Path(__file__).parents[2]


def test_message_survives_a_close(broker_name: str, make_broker: MakeBroker, domain: str) -> None:
    first = make_broker(broker_name)
    (queue,) = made(first, domain)
    put(first, queue, "a", "b", group="g")
    take_one(first, queue, lease=moment(first))
    first.close()
    assert bodies(take(make_broker(broker_name), queue, wait=5)) == ["a", "b"]


def test_second_broker_on_the_store_sees_the_message(
    broker_name: str, make_broker: MakeBroker, domain: str
) -> None:
    first, second = make_broker(broker_name), make_broker(broker_name)
    (queue,) = made(first, domain)
    put(first, queue, "a")
    assert bodies(take(second, queue, wait=1)) == ["a"]


def test_what_one_broker_holds_no_other_one_gets(
    broker_name: str, make_broker: MakeBroker, domain: str
) -> None:
    first, second = make_broker(broker_name), make_broker(broker_name)
    (queue,) = made(first, domain)
    put(first, queue, "a", "b", group="g")
    delivery = take_one(first, queue)
    assert take(second, queue) == []
    second.ack(queue, [delivery.receipt])
    assert bodies(take(second, queue)) == ["b"]


def test_waiting_receive_sees_what_another_broker_sends(
    broker_name: str, make_broker: MakeBroker, domain: str
) -> None:
    first, second = make_broker(broker_name), make_broker(broker_name)
    (queue,) = made(first, domain)
    receive = in_thread(lambda: take(second, queue, wait=10))
    put(first, queue, "a")
    assert bodies(receive.result(PATIENCE)) == ["a"]


_FORK = """
import json, os, sys, threading
from sqspipes.brokers import open_broker
from tests.contract.steps import made, put, take
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
