"""The hub of a task: what the leader may call in one turn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from sqspipes import TaskClient, open_broker
from sqspipes.calls.outcome import DONE
from sqspipes.engine.engine import Engine
from sqspipes.engine.task_run import TaskRun
from sqspipes.tasks.plan import RunPlan
from tests.builders import held_of


@pytest.fixture
def task() -> Iterator[TaskRun]:
    """A task of two workers with five messages, in a run that nobody leads."""
    with (
        contextlib.closing(open_broker("memory://")) as broker,
        TaskClient("domain", broker=broker) as client,
    ):
        client.register_tasks([{"method": print, "name": "task", "workers": 2}]).create_queues()
        plan = client._pipe.plan(client.get_task_by_name("task"))
        run = RunPlan([plan], {"task": [0]}, priority=0, drain=None, iterate=None, stop_timeout=1.0)
        noted: list[str] = []
        engine = Engine(broker, run, "domain", lambda: None, lambda kind, _: noted.append(kind))
        (task,) = engine.parts.fed
        for number in range(5):
            task.lanes.add(held_of(group=f"group-{number}"))
        yield task
        engine.parts.exchange.close()
        engine.loop.close()
        assert not noted


def test_leader_calls_more_than_workers_one_after_the_other(task: TaskRun) -> None:
    called = 0
    while (call := task.here.next_call(0.0, 0.0)) is not None:
        task.here.ended(call, [DONE], 0.0, 0.0)
        called += 1
    assert called == 5


def test_no_more_calls_than_workers_are_under_way_at_once(task: TaskRun) -> None:
    first, second = task.here.next_call(0.0, 0.0), task.here.next_call(0.0, 0.0)
    assert first is not None
    assert second is not None
    assert task.here.next_call(0.0, 0.0) is None
    task.here.ended_elsewhere(first, [DONE], 0.0)
    assert task.here.next_call(0.0, 0.0) is not None
    assert task.here.next_call(0.0, 0.0) is None
