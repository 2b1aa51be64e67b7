"""Forks: what was made to survive them costs nothing once it is gone."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil

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


def test_broker_that_nobody_closed_gives_its_files_back(tmp_path: Path) -> None:
    def use() -> int:
        for _ in range(5):
            open_broker(f"sqlite:///{tmp_path}/pipe.db").names("")
        gc.collect()
        return psutil.Process().num_fds()

    before = use()
    assert use() == before
