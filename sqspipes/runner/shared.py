"""Shared: what the tasks of one run have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqspipes.brokers.base import Broker
from sqspipes.runner.attempts import Attempts
from sqspipes.runner.gate import Gate
from sqspipes.runner.leases import Leases
from sqspipes.runner.run_loop import RunLoop
from sqspipes.runner.settler import Settler
from sqspipes.runner.stream import Stream


@dataclass(slots=True)
class Shared:
    """The parts that the dispatchers of one run share."""

    broker: Broker
    sizes: Mapping[
        str, int
    ]  #: the largest body that each queue takes, in bytes, known before the run started
    leases: Leases
    settler: Settler
    gate: Gate
    loop: RunLoop
    stream: Stream | None
    died: Callable[[str, BaseException], None]
    raised: Callable[[BaseException], None]
    tick: Callable[[float], None]
    quiet: Callable[[], None]  #: told of each call that ends during a stop
    heard: threading.Event = field(default_factory=threading.Event)
    attempts: Attempts = field(default_factory=Attempts)

    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that a queue takes; asks nobody, as a call must not fail by that."""
        return self.sizes.get(queue, self.broker.limits.message_bytes)
