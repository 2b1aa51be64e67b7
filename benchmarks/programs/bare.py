"""The least that can be done with a broker of ours: a loop in one thread, see ``benchmarks/pipe.py``."""

from __future__ import annotations

from benchmarks.pipe import TASKS, loop
from benchmarks.programs import work


def busy(messages: int, broker: str) -> None:
    """Do a backlog in full requests."""
    work.go()
    work.tell({"done": messages, "seconds": TASKS * messages / loop(broker, messages)})


if __name__ == "__main__":
    work.main(busy)
