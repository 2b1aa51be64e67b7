"""kill -9 in the middle: nothing is lost, and no hand-off happens twice."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import redis

from sqspipes import TaskClient
from tests.acceptance.support import calls, drain_of, eventually, program
from tests.servers import Forward, Proxy, Reply, Request
from tests.valkey import Valkey

MESSAGES = 2_000
TASKS = ("first", "second", "third")


class HandOffs:
    """What the server answered to sends: per queue, the message ids that each deduplication id led to."""

    def __init__(self) -> None:
        self.ids: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))

    def __call__(self, request: Request, forward: Forward) -> Reply:
        reply = forward(request)
        stored = {entry["Id"]: entry["MessageId"] for entry in reply.json.get("Successful", ())}
        for entry in request.json["Entries"]:
            if entry["Id"] in stored:
                queue = request.json["QueueUrl"].rpartition("/")[2]
                self.ids[queue][entry["MessageDeduplicationId"]].add(stored[entry["Id"]])
        return reply


def killed_and_restarted(domain: str, arguments: dict[str, Any], journal: Path) -> None:
    """Put messages, kill the pipe's process in the middle, start it again and check what the calls show."""
    with TaskClient(domain, **arguments, lease=5.0) as client:
        client.register_tasks([{"name": name} for name in TASKS])
        client.put_many(range(MESSAGES))
        with program("three_tasks.py", domain, arguments, journal, drain=drain_of(arguments)) as pipe:
            eventually(
                lambda: calls(journal).get("third", {}).__len__() > MESSAGES // 3, 60, "a third is through"
            )
            pipe.kill()
        in_flight = {level.task: level.in_flight for level in client.status().levels}
        with program("three_tasks.py", domain, arguments, journal, drain=drain_of(arguments)) as pipe:
            pipe.end(90)
        assert sum(level.waiting + level.in_flight + level.dead for level in client.status().levels) == 0
    called = calls(journal)
    for task in TASKS:
        assert set(called[task]) == {str(number) for number in range(MESSAGES)}
        assert sum(called[task].values()) - MESSAGES <= in_flight[task]


@pytest.mark.timeout(240)
def test_killed_process_loses_nothing_and_hands_nothing_on_twice(
    proxy: Proxy, domain: str, tmp_path: Path, broker_arguments: Any
) -> None:
    hand_offs = HandOffs()
    proxy.always("SendMessageBatch", hand_offs)
    arguments = {**broker_arguments("sqs"), "endpoint_url": proxy.url}
    killed_and_restarted(domain, arguments, tmp_path / "journal")
    taken = {queue: ids for queue, ids in hand_offs.ids.items() if "dead" not in queue}
    assert sorted(taken) == sorted(f"{domain}--{task}.fifo" for task in TASKS)
    for ids in taken.values():
        assert len(ids) == MESSAGES
        assert {len(stored) for stored in ids.values()} == {1}


def test_killed_process_loses_nothing_on_sqlite(domain: str, tmp_path: Path, broker_arguments: Any) -> None:
    killed_and_restarted(domain, broker_arguments("sqlite"), tmp_path / "journal")


def test_killed_process_pushes_each_result_to_a_list_once(
    domain: str, tmp_path: Path, broker_arguments: Any, valkey: Valkey
) -> None:
    arguments = {**broker_arguments("redis"), "output": f"rpush@{domain}"}
    killed_and_restarted(domain, arguments, tmp_path / "journal")
    with contextlib.closing(redis.Redis.from_url(valkey.url)) as direct:
        assert sorted(map(int, direct.lrange(domain, 0, -1))) == list(range(MESSAGES))
