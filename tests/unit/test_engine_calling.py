"""Calling: calls that wait for a thread can be taken back, short calls stay in few threads, and room is bounded."""

from __future__ import annotations

import threading

import pytest

from sqspipes.calls.outcome import Abandoned, Call
from sqspipes.engine import emit_room
from sqspipes.engine.call_threads import CallThreads
from sqspipes.engine.emit_room import EmitRoom
from sqspipes.support import clocks
from tests.builders import held_of

PATIENCE = 10.0


class Work:
    """What calls do: they wait for the gate, and are counted."""

    def __init__(self, most: int, *, open: bool = False) -> None:
        self.gate = threading.Event()
        if open:
            self.gate.set()
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self.hastened = threading.Semaphore(0)
        self.names: list[str] = []
        self.left: list[str] = []
        self.died: list[BaseException] = []
        self.threads = CallThreads(
            "d t",
            most,
            self._run,
            lambda part, error: self.died.append(error),
            self._leave,
            lambda: self.hastened.release(),
        )

    def _run(self, call: Call) -> None:
        self.names.append(threading.current_thread().name)
        self.begun.release()
        assert self.gate.wait(PATIENCE)
        self.ended.release()

    def _leave(self) -> None:
        self.left.append(threading.current_thread().name)


def calls(count: int) -> list[Call]:
    return [Call(()) for _ in range(count)]


def test_last_call_that_waited_hastens_the_engine() -> None:
    work = Work(1)
    work.threads.give(calls(3))
    work.gate.set()
    for _ in range(3):
        assert work.ended.acquire(timeout=PATIENCE)
    assert work.hastened.acquire(timeout=PATIENCE)
    assert not work.hastened.acquire(blocking=False)
    work.threads.close()
    work.threads.join(clocks.monotonic() + PATIENCE)


def test_calls_that_last_have_a_thread_each_and_no_more_than_allowed() -> None:
    work = Work(3)
    work.threads.give(calls(5))
    for _ in range(3):
        assert work.begun.acquire(timeout=PATIENCE)
    assert not work.begun.acquire(blocking=False)
    work.gate.set()
    for _ in range(5):
        assert work.ended.acquire(timeout=PATIENCE)
    assert len(set(work.names)) == 3
    work.threads.close()
    work.threads.join(clocks.monotonic() + PATIENCE)
    assert sorted(work.left) == sorted(set(work.names))


def test_what_no_thread_has_begun_can_be_taken_back() -> None:
    work = Work(2)
    given = calls(5)
    work.threads.give(given)
    for _ in range(2):
        assert work.begun.acquire(timeout=PATIENCE)
    assert len(work.threads.take_back()) == 3
    work.gate.set()
    work.threads.close()
    work.threads.join(clocks.monotonic() + PATIENCE)
    assert len(work.names) == 2


def test_one_call_after_the_other_needs_one_thread() -> None:
    work = Work(16, open=True)
    for _ in range(50):
        work.threads.give(calls(1))
        assert work.ended.acquire(timeout=PATIENCE)
        while not work.threads._sleeping:  # it is asleep again
            pass
    assert set(work.names) == {"sqspipes worker d t 1"}
    work.threads.close()


def test_one_thread_is_started_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    work = Work(16)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
        for _ in range(5):
            work.threads.give(calls(2))
    assert len(started) == 1


@pytest.mark.parametrize("starts", [0, 1])
def test_calls_for_which_no_thread_can_be_started_are_not_lost(
    starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, start, left = Work(2, open=True), threading.Thread.start, [starts]

    def start_some(thread: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    given = [Call((held_of(1),)), Call((held_of(2),))]
    if starts == 0:
        with pytest.raises(RuntimeError, match="new thread"):
            work.threads.give(given)
        assert work.threads.take_back() == []
    else:
        work.threads.give(given)
        work.threads.join(clocks.monotonic() + PATIENCE)
        assert [str(error) for error in work.died] == ["can't start new thread"]
        assert work.threads.take_back() == given


def test_thread_that_dies_is_told_of() -> None:
    def run(call: Call) -> None:
        raise SystemExit("no")

    died: list[tuple[str, BaseException]] = []
    told = threading.Event()

    def tell(part: str, error: BaseException) -> None:
        died.append((part, error))
        told.set()

    threads = CallThreads("d t", 1, run, tell)
    threads.give(calls(1))
    assert told.wait(PATIENCE)
    assert [(part, str(error)) for part, error in died] == [("worker d t", "no")]


@pytest.mark.parametrize(("items", "size"), [(3, 0), (2, 60)])
def test_emitting_waits_for_room(items: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit_room, "MOST_WAITING_ITEMS", 3)
    monkeypatch.setattr(emit_room, "MOST_WAITING_BYTES", 100)
    room, taken = EmitRoom(), threading.Semaphore(0)

    def emit() -> None:
        for _ in range(items + 1):
            room.take(size)
            taken.release()

    thread = threading.Thread(target=emit)
    thread.start()
    for _ in range(items):
        assert taken.acquire(timeout=PATIENCE)
    assert not taken.acquire(blocking=False)
    room.free(size)
    assert taken.acquire(timeout=PATIENCE)
    thread.join(PATIENCE)


def test_closed_room_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit_room, "MOST_WAITING_ITEMS", 0)
    room, came = EmitRoom(), []

    def emit() -> None:
        try:
            room.take(1)
        except Abandoned as error:
            came.append(error)

    thread = threading.Thread(target=emit)
    thread.start()
    room.close()
    thread.join(PATIENCE)
    assert len(came) == 1
    with pytest.raises(Abandoned):
        room.take(1)
