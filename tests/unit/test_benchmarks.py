"""The benchmarks: their SQS keeps the rules of FIFO and counts, and the command runs."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator

import pytest

from benchmarks import page
from benchmarks.__main__ import again, chosen, main, parsed
from benchmarks.charts import bars, lines
from benchmarks.programs.work import Sink
from benchmarks.responder.counters import BURST, Quota
from benchmarks.responder.queues import Message, Queue
from benchmarks.running import Responder, responder
from benchmarks.tables import ratios, table

NOW = 1_000_000.0


@pytest.fixture
def queue() -> Queue:
    """An empty queue."""
    return Queue("benchmark.fifo", {})


def put(queue: Queue, *bodies: str) -> None:
    """Send bodies; each one's group is its first letter."""
    for body in bodies:
        queue.send({"MessageBody": body, "MessageGroupId": body[0], "MessageDeduplicationId": body}, NOW)


def got(queue: Queue, count: int = 10, now: float = NOW) -> list[Message]:
    """Receive for 30 seconds."""
    queue.expire(now)
    return queue.receive(count, 30.0, now)


def bodies(messages: list[Message]) -> list[str]:
    """Return what messages say, by way of their JSON."""
    return [json.loads(message.answer())["Body"] for message in messages]


def test_a_receive_takes_a_group_as_far_as_it_goes_and_then_the_next(queue: Queue) -> None:
    put(queue, "a1", "b1", "a2", "b2")
    assert bodies(got(queue, 3)) == ["a1", "a2", "b1"]
    assert queue.depth() == (1, 3)


def test_a_group_in_flight_gives_nothing_more(queue: Queue) -> None:
    put(queue, "a1", "a2")
    (first,) = got(queue, 1)
    assert got(queue) == []
    assert queue.delete(first.handle)
    assert bodies(got(queue)) == ["a2"]


def test_what_is_given_back_comes_again_in_order(queue: Queue) -> None:
    put(queue, "a1", "a2", "a3")
    for message in reversed(got(queue, 2)):
        assert queue.change(message.handle, 0, NOW)
    assert bodies(got(queue)) == ["a1", "a2", "a3"]


def test_what_was_hidden_for_long_enough_comes_again_with_another_handle(queue: Queue) -> None:
    put(queue, "a1", "a2")
    (first,) = got(queue, 1)
    old = first.handle
    assert queue.change(old, 60, NOW)
    assert got(queue, now=NOW + 59) == []
    assert bodies(got(queue, now=NOW + 60)) == ["a1", "a2"]
    assert not queue.delete(old)
    assert queue.delete(first.handle)


def test_an_id_is_stored_once(queue: Queue) -> None:
    put(queue, "a%1", "a%1")
    assert bodies(got(queue)) == ["a%1"]


def test_a_quota_lets_its_rate_through() -> None:
    quota = Quota(10.0)
    assert sum(quota.takes("queue", "SendMessageBatch", NOW) for _ in range(100)) == BURST
    assert sum(quota.takes("queue", "SendMessage", NOW + 1) for _ in range(100)) == 10
    assert quota.takes("queue", "ReceiveMessage", NOW)


@pytest.fixture(scope="module")
def server() -> Iterator[Responder]:
    """A responder in a process of its own."""
    with responder() as it:
        yield it


def ask(server: Responder, action: str, **params: object) -> dict[str, object]:
    """Call an action, without botocore."""
    headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
    request = urllib.request.Request(server.url, json.dumps(params).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def test_requests_and_entries_are_counted(server: Responder) -> None:
    url = ask(server, "CreateQueue", QueueName="counted.fifo")["QueueUrl"]
    server.reset(0.0)
    entries = [
        {"Id": word, "MessageBody": word, "MessageGroupId": word, "MessageDeduplicationId": word}
        for word in ("one", "two", "three")
    ]
    ask(server, "SendMessageBatch", QueueUrl=url, Entries=entries)
    messages = ask(server, "ReceiveMessage", QueueUrl=url, MaxNumberOfMessages=2, WaitTimeSeconds=1)[
        "Messages"
    ]
    assert isinstance(messages, list)
    assert len(messages) == 2
    assert not server.empty()
    counted = {count["action"]: (count["requests"], count["entries"]) for count in server.counts()}
    assert counted == {"SendMessageBatch": (1, 3), "ReceiveMessage": (1, 2)}


def test_a_sink_counts_what_is_different() -> None:
    sink = Sink(2)
    for word in ("same", "same", "other"):
        sink.add(word)
    assert sink.wait() == 2


def test_tables_and_charts_have_every_figure() -> None:
    found = {"sqspipes": {"items/s": 2000.0, "share": 0.5}, "loop": {"items/s": 500.0}}
    assert "2,000  0.500" in table(found)
    assert ratios(found, "loop") == ["sqspipes / loop: items/s 4.00x"]
    assert "2,000" in bars("Items", {"sqspipes": 2000.0, "loop": 500.0}, "sqspipes")
    assert "polyline" in lines("Times", "linger", ["0", "1"], {"hop": [1.0, 100.0]})


def test_each_job_is_kept_with_the_command_that_does_it_alone() -> None:
    options = parsed(["--only", "busy", "--only", "idle pipe", "--full", "--write", "--runs", "3"])
    kept = [page.command(again(job, options)) for job in chosen(options)]
    assert kept == [
        "tox -e bench -- --only busy --full --write --runs 3",
        "tox -e bench -- --only 'idle pipe' --full --write --runs 3",
    ]


def test_a_quick_run_prints_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--only", "put_many"]) == 0
    said = capsys.readouterr().out
    assert "sqspipes / expert's loop: messages/s " in said
    assert re.search(r"requests per message 1\.0\dx", said)
