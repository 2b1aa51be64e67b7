"""Scheduling: what a task calls next, when the gate keeps calls back and leases end meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.calls.held import Held
from sqspipes.engine.gate import Gate
from sqspipes.engine.scheduling import Scheduling
from sqspipes.engine.task_state import TaskState
from tests.builders import held_of


class Stage:
    """Scheduling of one task, with a gate whose clock stands still."""

    def __init__(self) -> None:
        client = TaskClient("domain", broker="memory://").register_tasks([{"method": print, "name": "task"}])
        self.gate = Gate(lambda: None, lambda: 0.0)
        self.state = TaskState(client.get_task_by_name("task"), self.gate)
        shared: Any = SimpleNamespace(gate=self.gate)
        self.scheduling = Scheduling(self.state, shared)

    def add(self, **delivery: Any) -> Held:
        """Add a held message, whose lease ends at 60."""
        held = held_of(**delivery)
        if held.suspect:
            self.state.count_suspect(held, 1)
        self.state.lanes.add(held)
        return held


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_refused_suspect_whose_lease_ends_is_given_back(stage: Stage) -> None:
    innocent, suspect = stage.add(group="a"), stage.add(group="b", receives=5)
    other = stage.add(group="c")
    first = stage.scheduling.next_call(1.0)
    assert first is not None
    assert first.messages == (suspect,) or first.messages == (innocent,)
    stage.state.end(first)
    stage.gate.enter(innocent)  # it runs elsewhere
    waiting = stage.add(group="d", receives=5)
    assert stage.scheduling.next_call(2.0) is None
    assert stage.scheduling.is_suspect_next
    waiting.expires = 3.0
    call = stage.scheduling.next_call(4.0)
    assert stage.scheduling.to_give_back == [waiting]
    assert call is None or call.messages[0] in (other, innocent)
