"""Stream: results in order, safe when the next one is asked for, bounded, and forgotten when it is closed."""

from __future__ import annotations

import queue
import threading

from sqspipes.runner.held import Origin
from sqspipes.runner.stream import MOST_RESULTS, Stream

#: Seconds after which a test that waits for a thread fails.
PATIENCE = 10.0


def stream_and_safe() -> tuple[Stream, list[Origin]]:
    safe: list[Origin] = []
    return Stream(safe.append, lambda origin: None), safe


def test_results_come_in_the_order_in_which_they_were_offered() -> None:
    stream, _ = stream_and_safe()
    for value in (1, None, "x"):
        stream.offer(Origin(), value)
    assert [stream.next() for _ in range(3)] == [(1,), (None,), ("x",)]


def test_result_is_safe_when_the_next_one_is_asked_for() -> None:
    stream, safe = stream_and_safe()
    first, second = Origin(), Origin()
    stream.offer(first, 1)
    stream.offer(second, 2)
    stream.next()
    assert safe == []
    stream.next()
    assert safe == [first]
    stream.settle()
    stream.settle()
    assert safe == [first, second]


def test_result_is_safe_even_if_there_is_no_next_one_yet() -> None:
    safe: queue.SimpleQueue[Origin] = queue.SimpleQueue()
    stream = Stream(safe.put, lambda origin: None)
    first = Origin()
    stream.offer(first, 1)
    stream.next()
    reader = threading.Thread(target=stream.next)
    reader.start()
    assert safe.get(timeout=PATIENCE) is first
    stream.close()
    reader.join(PATIENCE)


def test_reader_waits_for_a_result() -> None:
    stream, _ = stream_and_safe()
    read: queue.SimpleQueue[object] = queue.SimpleQueue()
    reader = threading.Thread(target=lambda: read.put(stream.next()))
    reader.start()
    stream.offer(Origin(), "late")
    assert read.get(timeout=PATIENCE) == ("late",)
    reader.join(PATIENCE)


def test_reader_that_waits_is_let_go_by_the_close() -> None:
    stream, _ = stream_and_safe()
    read: queue.SimpleQueue[object] = queue.SimpleQueue()
    reader = threading.Thread(target=lambda: read.put(stream.next()))
    reader.start()
    stream.close()
    assert read.get(timeout=PATIENCE) is None
    reader.join(PATIENCE)


def test_closed_stream_forgets_what_was_not_read_and_what_comes() -> None:
    stream, safe = stream_and_safe()
    stream.offer(Origin(), 1)
    stream.close()
    stream.close()
    stream.offer(Origin(), 2)
    assert stream.next() is None
    assert stream.next() is None
    assert safe == []


def test_forgotten_results_are_told_with_the_one_that_the_reader_has() -> None:
    forgotten: list[Origin] = []
    stream = Stream(lambda origin: None, forgotten.append)
    read, unread, late = Origin(), Origin(), Origin()
    stream.offer(read, 1)
    stream.offer(unread, 2)
    stream.next()
    stream.close()
    stream.offer(late, 3)
    assert set(forgotten) == {read, unread, late}


def test_last_result_can_be_called_safe_after_the_close() -> None:
    stream, safe = stream_and_safe()
    origin = Origin()
    stream.offer(origin, 1)
    stream.next()
    stream.close()
    stream.settle()
    assert safe == [origin]


def test_tasks_wait_for_a_slow_reader() -> None:
    stream, _ = stream_and_safe()
    read: list[int] = []
    read_at_that_time: queue.SimpleQueue[int] = queue.SimpleQueue()
    for value in range(MOST_RESULTS):
        stream.wait_for_room()
        stream.offer(Origin(), value)

    def offer_one_more() -> None:
        stream.wait_for_room()
        read_at_that_time.put(len(read))

    task = threading.Thread(target=offer_one_more)
    task.start()
    with stream._changed:  # the reader's count is right before the stream has room
        read.append(1)
    assert stream.next() == (0,)
    assert read_at_that_time.get(timeout=PATIENCE) == 1
    task.join(PATIENCE)


def test_closed_stream_holds_no_task_up() -> None:
    stream, _ = stream_and_safe()
    for value in range(MOST_RESULTS):
        stream.offer(Origin(), value)
    task = threading.Thread(target=stream.wait_for_room)
    task.start()
    stream.close()
    task.join(PATIENCE)
    assert not task.is_alive()
    stream.wait_for_room()


def test_many_tasks_and_one_reader_lose_nothing() -> None:
    stream, safe = stream_and_safe()
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
    for thread in threads:
        thread.join(PATIENCE)
    for task in range(tasks):
        assert [one[0][1] for one in results if one and one[0][0] == task] == list(range(each))
    assert len(safe) == len(set(map(id, safe))) == each * tasks
