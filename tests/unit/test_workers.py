"""Workers: a pool leaves no thread behind, wherever its user is interrupted."""

from __future__ import annotations

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
