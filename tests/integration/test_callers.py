"""Who calls: as many calls at once as there are workers, whatever thread makes them; contexts are a task's own."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Any

import pytest

from sqspipes import NoMessageError, TaskCallback, current_message
from tests.integration.support import PATIENCE, Seen, passed, piped, until

MEMORY = {"broker": "memory://"}


class Inside:
    """Counts the calls that run at once. A call whose value is odd waits until the gate is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0
        self.waiting = 0
        self.gate = threading.Event()
        self.threads: set[int] = set()

    def work(self, value: int) -> None:
        with self._lock:
            self.threads.add(threading.get_ident())
            self.now += 1
            self.most = max(self.most, self.now)
        if value % 2:
            with self._lock:
                self.waiting += 1
            passed(self.gate)
        with self._lock:
            self.now -= 1


def test_no_more_calls_run_at_once_than_there_are_workers(domain: str) -> None:
    inside = Inside()
    work = {"method": inside.work, "name": "work", "workers": 4}
    with piped(domain, MEMORY, work) as client, client.start() as run:
        client.put_many(range(0, 200, 2))  # short ones, so that the leader makes them
        until(lambda: run.summary.done == 100)
        client.put_many(number // 2 for number in range(1, 81))  # of each two one that lasts
        until(lambda: inside.waiting == 4)
        inside.gate.set()
        until(lambda: run.summary.done == 180)
    assert inside.most == 4


def test_task_with_one_worker_is_called_by_one_thread(domain: str) -> None:
    inside = Inside()
    with piped(domain, MEMORY, {"method": inside.work, "name": "work"}) as client, client.start() as run:
        for number in range(1, 4):
            client.put_many(range(0, 20, 2))
            client.put(1)  # one that lasts: a thread that leads would have to leave that to another one
            until(lambda number=number: inside.waiting == number)  # type: ignore[misc]
            inside.gate.set()
            until(lambda number=number: run.summary.done == 11 * number)  # type: ignore[misc]
            inside.gate.clear()
    assert len(inside.threads) == 1


def test_call_that_lasts_holds_up_no_other_call(domain: str) -> None:
    inside, seen = Inside(), Seen()
    lasting = {"method": inside.work, "name": "lasting", "workers": 2}
    quick = {"method": seen.take, "name": "quick", "workers": 2}
    with piped(domain, MEMORY, lasting, quick) as client, client.start():
        client.put(1, task="lasting")
        until(lambda: inside.waiting == 1)
        for number in range(50):
            client.put(number, task="quick")
            seen.wait(number + 1)
        inside.gate.set()


def test_what_a_task_sets_for_itself_is_seen_in_no_other_task(domain: str) -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="nothing")
    found: set[str] = set()

    def marks(value: int) -> int:
        mark.set("of the first task")
        return value

    def looks(value: int) -> None:
        found.add(mark.get())

    first, second = {"method": marks, "workers": 4}, {"method": looks, "workers": 4}
    with piped(domain, MEMORY, first, second) as client, client.start() as run:
        client.put_many(range(100))
        until(lambda: run.summary.done == 200)
    assert found == {"nothing"}


def test_what_a_task_sets_for_itself_stays_with_the_thread(domain: str) -> None:
    calls: contextvars.ContextVar[int] = contextvars.ContextVar("calls", default=0)
    seen: list[int] = []

    def counts(value: int) -> None:
        calls.set(calls.get() + 1)
        seen.append(calls.get())

    with piped(domain, MEMORY, {"method": counts, "workers": 4}) as client, client.start() as run:
        client.put_many(range(100))
        until(lambda: run.summary.done == 100)
    assert max(seen) >= 100 / (4 + 2)


def test_log_handler_that_blocks_holds_up_no_call_and_no_stop(domain: str) -> None:
    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "failed" in record.getMessage():
                stuck.set()
                passed(go_on)

    def work(value: int) -> None:
        if value == 0:
            raise ValueError("no luck")
        seen.take(value)

    stuck, go_on, seen = threading.Event(), threading.Event(), Seen()
    handler, logger = Stuck(), logging.getLogger("sqspipes")
    logger.addHandler(handler)
    options: dict[str, Any] = {"method": work, "workers": 4, "backoff": 60.0}
    try:
        with piped(domain, MEMORY, options) as client, client.start() as run:
            client.put(0)
            passed(stuck)
            client.put_many(range(1, 20))
            seen.wait(19)
            run.stop()
            assert run.join(PATIENCE / 2)
            go_on.set()
    finally:
        go_on.set()
        logger.removeHandler(handler)


def test_text_of_an_error_is_made_by_its_call_or_by_the_log(
    domain: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqspipes")
    asked: set[str] = set()

    class TellingError(Exception):
        def __str__(self) -> str:
            try:
                current_message()
                asked.add("call")
            except NoMessageError:
                asked.add(threading.current_thread().name)
            return "told"

    def fail(value: int) -> None:
        raise TellingError

    with piped(domain, MEMORY, {"method": fail, "workers": 2, "retries": 1, "backoff": 0.0}) as client:
        client.put(0)
        assert client.run(drain=True).dead == 1
    assert "call" in asked
    assert asked <= {"call", "sqspipes log"}


@pytest.mark.parametrize("hook", ["backoff", "json_default", "callback"])
def test_hook_that_takes_long_holds_up_no_other_task(hook: str, domain: str) -> None:
    begun, go_on, seen = threading.Event(), threading.Event(), Seen()

    def slow(*_: Any) -> float:
        begun.set()
        passed(go_on)
        return 0.0

    def work(value: int) -> Any:
        if hook == "backoff" and not begun.is_set():
            raise ValueError
        if hook == "json_default":
            return object()
        return TaskCallback(value, slow) if hook == "callback" else value

    working = {"method": work, "workers": 2, **({"backoff": slow} if hook == "backoff" else {})}
    taking = {"method": seen.take, "name": "take", "workers": 2}
    arguments = {**MEMORY, **({"json_default": slow} if hook == "json_default" else {})}
    with piped(domain, arguments, working, taking) as client, client.start():
        client.put(1, task="work")
        passed(begun)
        client.put_many([2, 3], task="take")
        # What a callback belongs to has been handed on before.
        assert {2, 3} <= set(seen.wait(3 if hook == "callback" else 2))
        go_on.set()
        assert len(seen.wait(3)) == 3
