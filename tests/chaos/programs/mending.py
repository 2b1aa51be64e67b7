"""A process that sends the dead letters of task one back, and kills itself with -9 on the way.

Settings (JSON): ``domain``, ``arguments`` of TaskClient, ``point``: a method of the broker, ``before`` or ``after``,
and the number of the call.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqspipes import Broker, TaskClient
from sqspipes.brokers import open_broker

settings = json.loads(sys.argv[1])
method, moment, number = settings["point"]
calls = itertools.count(1)


def passed_on(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        last = name == method and next(calls) == number
        if last and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = getattr(self.real, name)(*args, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return call


def mortal(real: Broker) -> Broker:
    """Return a broker that passes everything on to a real one."""
    found: Any = type("Mortal", (Broker,), {name: passed_on(name) for name in Broker.__abstractmethods__})()
    found.url, found.limits, found.real = real.url, real.limits, real
    return found  # type: ignore[no-any-return]


if __name__ == "__main__":
    arguments = dict(settings["arguments"])
    broker = mortal(open_broker(arguments.pop("broker"), **arguments))
    with TaskClient(settings["domain"], broker=broker) as client:
        print(client.register_tasks([{"name": "one"}]).redrive("one"), "letters sent back", flush=True)
