"""Forks: what was made to survive them costs nothing once it is gone."""

from __future__ import annotations

import gc
from pathlib import Path

from sqspipes.brokers import open_broker


def test_brokers_that_are_gone_leave_nothing_behind(tmp_path: Path) -> None:
    def use(times: int) -> int:
        for _ in range(times):
            broker = open_broker(f"sqlite:///{tmp_path}/pipe.db")
            broker.names("")
            broker.close()
        del broker
        gc.collect()
        return len(gc.get_objects())

    before = use(3)
    assert use(100) - before < 100
