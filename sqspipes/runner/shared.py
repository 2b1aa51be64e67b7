"""Shared: what the tasks of one run have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqspipes.brokers.base import Broker
from sqspipes.runner.gate import Gate
from sqspipes.runner.leases import Leases
from sqspipes.runner.settler import Settler
from sqspipes.runner.stream import Stream

if TYPE_CHECKING:
    from sqspipes.runner.loop import Loop


@dataclass(slots=True)
class Counts:
    """What one task did in this run: calls that succeeded, failed attempts, dead letters."""

    done: int = 0
    failed: int = 0
    dead: int = 0


@dataclass(slots=True)
class Shared:
    """The parts that the dispatchers of one run share."""

    broker: Broker
    leases: Leases
    settler: Settler
    gate: Gate
    loop: Loop | None  #: of a run with async tasks
    stream: Stream | None
    died: Callable[[str, BaseException], None]
    raised: Callable[[BaseException], None]
    tick: Callable[[float], None]
    quiet: Callable[[], None]  #: told of each call that ends during a stop
    heard: threading.Event = field(default_factory=threading.Event)
