"""Workers: a pool leaves no thread behind, wherever its user is interrupted."""

from __future__ import annotations

import math
import threading

import pytest

from sqspipes.support.workers import Workers


def test_thread_whose_start_was_interrupted_ends_with_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), Workers(2, "an interrupted pool") as pool:
            pool.submit(int)
    assert not [thread for thread in threading.enumerate() if "interrupted pool" in thread.name]


def test_pool_whose_threads_never_began_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt), Workers(2, "pool") as pool:
            pool.submit(int)


def test_thread_is_started_only_when_none_is_idle() -> None:
    with Workers(math.inf, "a pool") as pool:
        names = set()
        for _ in range(5):
            names.add(pool.submit(lambda: threading.current_thread().name).result())
            while not pool._idle:  # the thread says so once it has told the result
                pass
        assert names == {"a pool 1"}
        together = threading.Barrier(3)
        for future in [pool.submit(together.wait, 30) for _ in range(3)]:
            future.result()


def test_no_more_threads_than_allowed() -> None:
    go_on = threading.Event()
    with Workers(2, "a pool") as pool:
        futures = [pool.submit(lambda: go_on.wait(30) and threading.current_thread().name) for _ in range(6)]
        go_on.set()
        assert {future.result() for future in futures} <= {"a pool 1", "a pool 2"}


def test_thread_that_is_idle_ends_and_another_one_is_started_for_more_work() -> None:
    with Workers(math.inf, "a pool", idle_seconds=0.01) as pool:
        for number in range(3):
            assert pool.submit(lambda: threading.current_thread().name).result() == f"a pool {number + 1}"
            while pool._threads:
                pass
        assert not pool._idle


def test_work_that_comes_while_threads_end_is_done() -> None:
    with Workers(math.inf, "a pool", idle_seconds=0.0) as pool:
        assert [pool.submit(int).result(10) for _ in range(200)] == [0] * 200
