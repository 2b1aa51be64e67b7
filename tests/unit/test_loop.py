"""The loop: timers at their time, word from any thread, sockets that are ready; a turn that ends."""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Iterator

import pytest

from sqspipes.engine.loop import MOST_CANCELLED, EngineLoop

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 10.0


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["default", "select", "no eventfd"])
def loop(
    request: pytest.FixtureRequest, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EngineLoop]:
    """A loop on each kind of selector, and with each kind of wake-up."""
    if request.param == "no eventfd":
        monkeypatch.delattr(os, "eventfd", raising=False)
    made = EngineLoop(selectors.SelectSelector() if request.param == "select" else None, clock)
    yield made
    made.close()


def test_timer_is_due_at_its_time_and_once(loop: EngineLoop, clock: Clock) -> None:
    done: list[str] = []
    loop.later(5.0, lambda: done.append("five"))
    loop.later(2.0, lambda: done.append("two"))
    loop.at(102.0, lambda: done.append("two, too"))
    loop.turn(0)
    assert done == []
    clock.now += 2.0
    loop.turn(0)
    assert done == ["two", "two, too"]
    clock.now += 50.0
    loop.turn(0)
    loop.turn(0)
    assert done == ["two", "two, too", "five"]


def test_timer_that_is_cancelled_does_nothing(loop: EngineLoop, clock: Clock) -> None:
    done: list[int] = []
    first, second = (loop.later(1.0, lambda number=number: done.append(number)) for number in range(2))  # type: ignore[misc]
    first.cancel()
    first.cancel()
    clock.now += 1.0
    loop.turn(0)
    second.cancel()
    assert done == [1]


def test_timers_that_are_cancelled_do_not_pile_up(loop: EngineLoop, clock: Clock) -> None:
    done: list[int] = []
    loop.later(1.0, lambda: done.append(1))
    for _ in range(20 * MOST_CANCELLED):
        loop.later(1_000.0, lambda: done.append(2)).cancel()
    assert len(loop._timers) <= MOST_CANCELLED + 2
    clock.now += 2_000.0
    loop.turn(0)
    assert done == [1]


def test_word_is_done_in_the_order_in_which_it_was_told(loop: EngineLoop) -> None:
    done: list[int] = []
    for number in range(100):
        loop.tell(lambda number=number: done.append(number))  # type: ignore[misc]
    loop.turn()
    assert done == list(range(100))


@pytest.mark.parametrize("way", ["tell", "tell_soon"])
def test_word_of_another_thread_ends_the_wait(loop: EngineLoop, way: str) -> None:
    done: list[str] = []
    waiting = threading.Thread(target=loop.turn)
    waiting.start()
    getattr(loop, way)(lambda: done.append("told"))
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert done == ["told"]


@pytest.mark.parametrize("way", ["tell", "tell_soon"])
def test_no_word_of_many_threads_is_lost(loop: EngineLoop, way: str) -> None:
    done: list[int] = []

    def tell() -> None:
        for number in range(500):
            getattr(loop, way)(lambda number=number: done.append(number))
            if not number % 7:
                loop.hasten()

    threads = [threading.Thread(target=tell) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(done) < 4_000:
        loop.turn(PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(done) == sorted(list(range(500)) * 8)


@pytest.mark.parametrize("ends", ["by itself", "hasten", "tell"])
def test_word_that_can_wait_is_gathered_after_a_turn_with_some(
    loop: EngineLoop, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(
        "sqspipes.engine.loop.GATHERING_SECONDS", 0.01 if ends == "by itself" else 2 * PATIENCE
    )
    done: list[int] = []
    loop.tell_soon(lambda: done.append(0))
    loop.turn()
    assert done == [0]
    wakes: list[None] = []
    wake = loop._wakeup.wake
    monkeypatch.setattr(loop._wakeup, "wake", lambda: (wakes.append(None), wake()))
    waiting = threading.Thread(target=loop.turn)
    waiting.start()
    for number in range(1, 4):
        loop.tell_soon(lambda number=number: done.append(number))  # type: ignore[misc]
    assert not wakes
    if ends == "hasten":
        loop.hasten()
    elif ends == "tell":
        loop.tell(lambda: done.append(4))
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    loop.turn(0)  # what was told when the first turn had ended by itself
    assert done == [0, 1, 2, 3, 4][: 5 if ends == "tell" else 4]


def test_order_of_word_is_kept_whether_it_can_wait_or_not(loop: EngineLoop) -> None:
    done: list[int] = []
    for number in range(0, 100, 2):
        loop.tell_soon(lambda number=number: done.append(number))  # type: ignore[misc]
        loop.tell(lambda number=number: done.append(number + 1))  # type: ignore[misc]
    loop.turn()
    assert done == list(range(100))


def test_what_a_turn_brings_about_waits_for_the_next_one(loop: EngineLoop) -> None:
    done: list[str] = []

    def again() -> None:
        done.append("again")
        loop.tell(again)
        loop.later(0.0, lambda: done.append("timer"))

    loop.tell(again)
    loop.turn()
    assert done == ["again"]
    loop.turn()
    assert done == ["again", "timer", "again"]


def test_socket_that_is_ready_is_told_of_in_each_turn(loop: EngineLoop) -> None:
    one, other = socket.socketpair()
    done: list[bytes] = []
    with one, other:
        loop.watch(one, selectors.EVENT_READ, lambda: done.append(one.recv(1)))
        loop.turn(0)
        other.send(b"ab")
        loop.turn()
        loop.turn()
        assert done == [b"a", b"b"]
        loop.watch(one, selectors.EVENT_WRITE, lambda: done.append(b"writable"))
        loop.turn()
        assert done[2:] == [b"writable"]
        loop.unwatch(one)
        loop.unwatch(one)
        loop.turn(0)
        assert len(done) == 3


def test_wait_ends_when_a_timer_is_due() -> None:
    loop = EngineLoop()
    done: list[str] = []
    loop.later(0.05, lambda: done.append("due"))
    while not done:
        loop.turn(PATIENCE)
    loop.close()


def test_loop_that_is_closed_is_told_in_vain_and_touches_no_file_of_others(loop: EngineLoop) -> None:
    descriptor = loop._wakeup.descriptor
    reader, writer = os.pipe()
    loop.close()
    os.dup2(writer, descriptor)  # another file has its number now
    loop.tell(lambda: None)
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    for each in (reader, writer, descriptor):
        os.close(each)
    loop.close = lambda: None  # type: ignore[method-assign]


def test_close_in_a_forked_child_leaves_the_parent_its_sockets(loop: EngineLoop) -> None:
    one, other = socket.socketpair()
    done: list[bytes] = []
    with one, other:
        loop.watch(one, selectors.EVENT_READ, lambda: done.append(one.recv(1)))
        child = os.fork()
        if child == 0:
            loop.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        other.send(b"a")
        loop.turn(PATIENCE)
    assert done == [b"a"]
