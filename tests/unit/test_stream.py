"""Stream: results in order, safe when the next one is asked for, bounded, and forgotten when it is closed."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from sqspipes.calls.held import Origin
from sqspipes.engine.stream import MOST_RESULTS, Stream
from tests.interrupting import interrupted_everywhere

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 10.0


class Streams:
    """Makes streams, and ends them after the test; ``safe`` and ``forgotten`` are the origins that they told of."""

    def __init__(self) -> None:
        self.safe: queue.SimpleQueue[Origin] = queue.SimpleQueue()
        self.forgotten: list[Origin] = []
        self.died: queue.SimpleQueue[tuple[str, BaseException]] = queue.SimpleQueue()
        self._made: list[Stream] = []

    def make(self, safe: Callable[[Origin], None] | None = None) -> Stream:
        stream = Stream(safe or self.safe.put, self.forgotten.append, lambda *told: self.died.put(told))
        stream.start()
        self._made.append(stream)
        return stream

    def next_safe(self) -> Origin:
        return self.safe.get(timeout=PATIENCE)

    def end(self) -> None:
        for stream in self._made:
            stream.end()
            stream._thread.join(PATIENCE)
            assert not stream._thread.is_alive()


@pytest.fixture
def streams() -> Iterator[Streams]:
    streams = Streams()
    yield streams
    streams.end()


@pytest.fixture
def stream(streams: Streams) -> Stream:
    return streams.make()


def test_results_come_in_the_order_in_which_they_were_offered(stream: Stream) -> None:
    for value in (1, None, "x"):
        stream.offer(Origin(), value)
    assert [stream.next() for _ in range(3)] == [(1,), (None,), ("x",)]


def test_result_is_safe_when_the_next_one_is_asked_for(streams: Streams, stream: Stream) -> None:
    first, second = Origin(), Origin()
    stream.offer(first, 1)
    stream.offer(second, 2)
    stream.next()
    stream.next()
    assert streams.next_safe() is first
    stream.settle()
    stream.settle()
    stream.close()
    assert streams.next_safe() is second
    assert streams.safe.empty()
    assert streams.forgotten == []


def test_result_is_safe_even_if_there_is_no_next_one_yet(streams: Streams, stream: Stream) -> None:
    first = Origin()
    stream.offer(first, 1)
    stream.next()
    reader = threading.Thread(target=stream.next)
    reader.start()
    assert streams.next_safe() is first
    stream.close()
    reader.join(PATIENCE)


def test_reader_waits_for_a_result(stream: Stream) -> None:
    read: queue.SimpleQueue[object] = queue.SimpleQueue()
    reader = threading.Thread(target=lambda: read.put(stream.next()))
    reader.start()
    stream.offer(Origin(), "late")
    assert read.get(timeout=PATIENCE) == ("late",)
    reader.join(PATIENCE)


def test_reader_that_waits_is_let_go_by_the_close(stream: Stream) -> None:
    read: queue.SimpleQueue[object] = queue.SimpleQueue()
    reader = threading.Thread(target=lambda: read.put(stream.next()))
    reader.start()
    stream.close()
    assert read.get(timeout=PATIENCE) is None
    reader.join(PATIENCE)


def test_closed_stream_forgets_what_was_not_read_and_what_comes(streams: Streams, stream: Stream) -> None:
    stream.offer(Origin(), 1)
    stream.close()
    stream.close()
    stream.offer(Origin(), 2)
    assert stream.next() is None
    assert stream.next() is None
    assert streams.safe.empty()


def test_forgotten_results_are_told_with_the_one_that_the_reader_has(
    streams: Streams, stream: Stream
) -> None:
    read, unread, late = Origin(), Origin(), Origin()
    stream.offer(read, 1)
    stream.offer(unread, 2)
    stream.next()
    stream.close()
    stream.offer(late, 3)
    assert set(streams.forgotten) == {read, unread, late}


def test_last_result_can_be_called_safe_after_the_close(streams: Streams, stream: Stream) -> None:
    origin = Origin()
    stream.offer(origin, 1)
    stream.next()
    stream.close()
    stream.settle()
    assert streams.next_safe() is origin


def test_what_the_reader_was_done_with_is_safe_once_the_stream_is_closed(streams: Streams) -> None:
    reached, go_on = threading.Event(), threading.Event()
    safe: list[Origin] = []

    def slowly(origin: Origin) -> None:
        reached.set()
        go_on.wait(PATIENCE)
        safe.append(origin)

    stream = streams.make(slowly)
    first, second = Origin(), Origin()
    for origin in (first, second):
        stream.offer(origin, None)
        stream.next()
    stream.settle()
    assert reached.wait(PATIENCE)
    threading.Timer(0.05, go_on.set).start()
    stream.close()
    assert safe == [first, second]


def test_error_of_what_calls_results_safe_is_told(streams: Streams) -> None:
    def fails(origin: Origin) -> None:
        raise LookupError(origin)

    stream = streams.make(fails)
    stream.offer(Origin(), 1)
    stream.next()
    stream.settle()
    part, error = streams.died.get(timeout=PATIENCE)
    assert part == "results"
    assert isinstance(error, LookupError)


def test_tasks_wait_for_a_slow_reader(stream: Stream) -> None:
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    for value in range(MOST_RESULTS):
        stream.wait_for_room()
        stream.offer(Origin(), value)

    def offer_one_more() -> None:
        stream.wait_for_room()
        came.put(len(stream._results))

    task = threading.Thread(target=offer_one_more)
    task.start()
    assert stream.next() == (0,)
    assert came.get(timeout=PATIENCE) < MOST_RESULTS
    task.join(PATIENCE)


def test_each_of_many_tasks_that_wait_gets_its_turn(stream: Stream) -> None:
    for value in range(MOST_RESULTS):
        stream.offer(Origin(), value)
    tasks = [threading.Thread(target=stream.wait_for_room) for _ in range(20)]
    for task in tasks:
        task.start()
    stream.next()
    for task in tasks:
        task.join(PATIENCE)
        assert not task.is_alive()


def test_closed_stream_holds_no_task_up(stream: Stream) -> None:
    for value in range(MOST_RESULTS):
        stream.offer(Origin(), value)
    task = threading.Thread(target=stream.wait_for_room)
    task.start()
    stream.close()
    task.join(PATIENCE)
    assert not task.is_alive()
    stream.wait_for_room()


def test_many_tasks_and_one_reader_lose_nothing(streams: Streams, stream: Stream) -> None:
    each, tasks = 300, 4

    def work(task: int) -> None:
        for number in range(each):
            stream.wait_for_room()
            stream.offer(Origin(), (task, number))

    threads = [threading.Thread(target=work, args=(task,)) for task in range(tasks)]
    for thread in threads:
        thread.start()
    results = [stream.next() for _ in range(each * tasks)]
    stream.settle()
    stream.close()
    for thread in threads:
        thread.join(PATIENCE)
    for task in range(tasks):
        assert [one[0][1] for one in results if one and one[0][0] == task] == list(range(each))
    safe = {id(streams.safe.get_nowait()) for _ in range(each * tasks)}
    assert len(safe) == each * tasks
    assert streams.safe.empty()
    assert streams.forgotten == []


def test_reader_that_is_interrupted_anywhere_loses_no_result(streams: Streams) -> None:
    runs: list[tuple[Stream, list[Origin], list[int]]] = []

    def read_some() -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        stream, origins, read = streams.make(), [Origin() for _ in range(4)], []
        for number, origin in enumerate(origins):
            stream.offer(origin, number)
        runs.append((stream, origins, read))
        sys.settrace(trace)
        for _ in range(3):
            result = stream.next(PATIENCE)
            assert result is not None
            read.append(result[0])
        stream.settle()

    for _ in interrupted_everywhere(read_some):
        stream, origins, read = runs[-1]
        closing = threading.Thread(target=stream.close)
        closing.start()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        safe = []
        while not streams.safe.empty():
            safe.append(streams.safe.get())
        assert safe == origins[: len(safe)]
        assert len(safe) <= len(read)
        assert {*safe, *streams.forgotten} >= set(origins)
        assert not set(safe[:-1]) & set(streams.forgotten)
        streams.forgotten.clear()
    assert len(runs) > 20
