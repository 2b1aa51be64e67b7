"""Stops: what a process is told, and what must hold right after its end."""

from __future__ import annotations

import signal
import time

from tests.chaos.conftest import Pipe
from tests.chaos.fleet import Worker
from tests.chaos.ledger import RESULTS, TASKS, wait_for

#: The longest lease: nothing that waits for the end of one comes back within a test.
LEASE = 240.0


def hidden(pipe: Pipe) -> dict[str, int]:
    """Return the queues that have messages in flight, by the broker's own count."""
    depths = {task: pipe.ledger.broker.depth(f"{pipe.domain}--{task}.fifo") for task in (*TASKS, RESULTS)}
    return {task: depth.in_flight for task, depth in depths.items() if depth.in_flight}


def busy(pipe: Pipe, worker: Worker, calls: int) -> None:
    """Wait until so many calls have begun in a process."""
    worker.said("runs on")
    wait_for(
        lambda: begun(pipe, worker) >= calls,
        60,
        lambda: f"{begun(pipe, worker)} calls:\n{worker.log[-3000:]}",
    )


def begun(pipe: Pipe, worker: Worker) -> int:
    """Return how many calls have begun in a process."""
    return (
        pipe.ledger.journal.read_text().count(f" {worker.process.pid} ")
        if pipe.ledger.journal.exists()
        else 0
    )


def ended(pipe: Pipe, worker: Worker, *numbers: signal.Signals, running: int = 0) -> float:
    """Send signals, wait for the good end, and check that nothing is hidden; return the seconds it took.

    ``running``: of so many calls which were given up the messages come back after their leases.
    """
    for number in numbers:
        worker.send(number)
    begun = time.monotonic()
    worker.end(60)
    took = time.monotonic() - begun
    assert sum(hidden(pipe).values()) <= running, f"{hidden(pipe)} right after the end:\n{worker.log[-3000:]}"
    return took


def settle(pipe: Pipe, seconds: float = 120.0) -> float:
    """Let one more process do what is left, and end it; return the seconds it took, none of them a lease's."""
    assert seconds < LEASE
    worker = pipe.fleet.start(seconds=0.0)
    worker.said("runs on")
    took = pipe.ledger.settle(seconds)
    ended(pipe, worker, signal.SIGINT)
    return took
