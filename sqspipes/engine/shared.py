"""EngineShared: what the tasks of one run have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqspipes.calls.run_loop import RunLoop
from sqspipes.engine.attempts import Attempts
from sqspipes.engine.gate import Gate
from sqspipes.engine.leases import Leases
from sqspipes.engine.loop import EngineLoop
from sqspipes.engine.requests import Requests
from sqspipes.engine.settling import Settling
from sqspipes.support.listeners import Listeners


@dataclass(slots=True)
class EngineShared:
    """The parts that the tasks of one run share.

    ``sizes`` has the largest body, in bytes, that each queue takes. ``died`` is told of a part that cannot go on,
    from any thread; ``raised`` of the error of a task that ends the run; ``notify_at`` has the run looked at, at a
    time of the lease clock; ``about_to_wait`` is to be called by a call that is about to wait.
    """

    loop: EngineLoop
    requests: Requests
    settling: Settling
    leases: Leases
    gate: Gate
    run_loop: RunLoop
    sizes: Mapping[str, int]
    message_size: int  #: bytes, of queues that ``sizes`` does not have
    died: Callable[[str, BaseException], None]
    raised: Callable[[BaseException], object]
    notify_at: Callable[[float], object]
    about_to_wait: Callable[[], object]
    listeners: Listeners
    has_sent_all: bool = False  #: a stop has waited for what was to be sent
    heard: threading.Event = field(default_factory=threading.Event)  #: something was received, or is paused
    attempts: Attempts = field(default_factory=Attempts)

    def message_bytes(self, queue: str) -> int:
        """Return the largest body, in bytes, that a queue takes; asks nobody, as a call must not fail by that."""
        return self.sizes.get(queue, self.message_size)
