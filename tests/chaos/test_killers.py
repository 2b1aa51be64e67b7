"""Scenario 8: a message that kills its process becomes a dead letter, and takes nobody with it."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from tests.chaos.conftest import Chaos, MakePipe, Pipe

NEIGHBOURS = [f"g{number}" for number in range(20)]
KILLER = ["killer", 0]


@pytest.mark.a_minute
@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker_name", ["sqlite", "redis", "sqs"])
def test_message_that_kills_its_process_is_the_only_dead_letter(
    chaos: Chaos, make_pipe: MakePipe, tmp_path: Path, broker_name: str
) -> None:
    most = 25 if chaos.full else 10
    lasting = 5.0 if chaos.full else 2.0
    warm = chaos.random.random() < 0.5  # the killer comes when both processes are at work
    pipe = make_pipe(broker_name, options={"lease": 1.0}, killer=KILLER, lasting=lasting)
    limit_receives(pipe, tmp_path, most)
    if not warm:
        put(pipe, ["killer"], 10)
    put(pipe, NEIGHBOURS, 2)
    for _ in range(2):
        pipe.fleet.start("killing.py").said("runs on")
    if warm:
        put(pipe, ["killer"], 10)
        put(pipe, NEIGHBOURS, 2)
    seconds = pipe.ledger.settle(300)
    died = pipe.fleet.log.count(f"ended with {-signal.SIGSEGV}\n")
    letters = [letter.value for letter in pipe.ledger.client.dead_letters()]
    assert [[value["group"], value["n"]] for value in letters] == [KILLER]
    pipe.fleet.end()
    variant = f"8 killers: {'among others' if warm else 'first'}, {most} receives"
    chaos.settled(variant, broker_name, pipe, faults=died, seconds=seconds)
    assert 1 <= died <= most


def put(pipe: Pipe, groups: list[str], each: int) -> None:
    """Put messages, group after group in turn, numbers going on where they ended."""
    firsts = {group: len(pipe.ledger.put.setdefault(group, [])) for group in groups}
    values = [{"group": group, "n": firsts[group] + n} for n in range(each) for group in groups]
    pipe.ledger.client.put_many(values, group=lambda value: value["group"])
    for value in values:
        pipe.ledger.put[value["group"]].append(value["n"])


def limit_receives_of_redis(pipe: Pipe, queue: str, most: int) -> None:
    url = pipe.ledger.arguments["broker"].partition("?")[0]
    server: Any
    with contextlib.closing(redis.Redis.from_url(url)) as server:
        id, origin, _, dead = server.hget(f"{pipe.domain}:queues", queue).decode().split(" ")
        server.hset(f"{pipe.domain}:queues", queue, f"{id} {origin} {most} {dead}")


def limit_receives(pipe: Pipe, folder: Path, most: int) -> None:
    """Let the broker bury a message of one after so many receives."""
    queue = f"{pipe.domain}--one.fifo"
    if pipe.ledger.arguments["broker"].startswith("redis:"):
        limit_receives_of_redis(pipe, queue, most)
        return
    if pipe.proxy is None:
        with contextlib.closing(sqlite3.connect(folder / "pipe.db", timeout=30)) as database, database:
            database.execute("UPDATE queue SET max_receives=? WHERE name=?", (most, queue))
        return
    ways = pipe.ledger.arguments
    sqs = boto3.client(
        "sqs",
        endpoint_url=ways["endpoint_url"],
        region_name=ways["aws_region"],
        aws_access_key_id=ways["aws_key"],
        aws_secret_access_key=ways["aws_secret"],
    )
    with contextlib.closing(sqs):
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        policy = {**json.loads(found["Attributes"]["RedrivePolicy"]), "maxReceiveCount": most}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
