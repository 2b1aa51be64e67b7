"""The output as a plain Redis list: results are pushed to it as JSON, once, for whoever reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from sqspipes import OptionError, Output, Pipeline, RunError, TaskClient
from tests.integration.shell import Shell
from tests.integration.support import piped, run_until
from tests.integration.worlds import LEASE, OVER, Clock, dying
from tests.valkey import Valkey

DOUBLER = """
from sqspipes import TaskClient


def double(value):
    return 2 * value


doubler = TaskClient({domain!r}, broker={broker!r}).register_tasks([double])
"""


def double(value: int) -> dict[str, Any]:
    """Return twice the value, with more around it."""
    return {"twice": 2 * value, "text": "é"}


@pytest.fixture
def words(domain: str) -> str:
    """The key of a list that no other test has."""
    return f"{domain}:words"


@pytest.fixture
def direct(valkey: Valkey) -> Iterator[Any]:
    """The server, past the broker."""
    with contextlib.closing(redis.Redis.from_url(valkey.url, decode_responses=True)) as client:
        yield client


@pytest.fixture
def on_redis(broker_arguments: Any) -> dict[str, Any]:
    """What leads a client to Redis."""
    found: dict[str, Any] = broker_arguments("redis")
    return found


def pushed(direct: Any, key: str) -> list[Any]:
    """Return what a list holds, read as JSON."""
    return [json.loads(text) for text in direct.lrange(key, 0, -1)]


def test_results_are_in_the_list_in_order_as_plain_json(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        client.put_many([1, 2, 3], group="g")
        client.run(drain=True)
    assert direct.lrange(words, 0, -1) == [f'{{"twice":{2 * n},"text":"\\u00e9"}}' for n in (1, 2, 3)]


def test_hand_off_that_is_repeated_pushes_once(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    clock = Clock()
    broker = dying(on_redis["broker"], clock)
    with (
        contextlib.closing(broker),
        piped(domain, {"broker": broker, "lease": LEASE}, double, output=f"rpush@{words}") as client,
    ):
        client.put(1)
        broker.dies_for = client.tasks[0].queue(0)
        with pytest.raises(RunError):
            client.run(drain=True)
        clock.now += OVER  # its lease is over
        assert client.run(drain=True).done == 1
    assert [value["twice"] for value in pushed(direct, words)] == [2]


def test_messages_that_share_an_id_push_one_result_each(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        for number in (1, 2):
            client.put(number, id="same", group=number)
        client.run(drain=True)
    assert sorted(value["twice"] for value in pushed(direct, words)) == [2, 4]


def test_call_that_runs_again_pushes_once(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    tries: list[int] = []

    def several(value: int) -> Iterator[int]:
        tries.append(value)
        yield value
        yield value + 1
        if len(tries) == 1:
            raise OSError("after both were handed on")

    with piped(domain, on_redis, several, output=f"rpush@{words}") as client:
        client.put(1)
        assert client.run(drain=True).failed == 1
    assert (pushed(direct, words), len(tries)) == ([1, 2], 2)


def test_list_is_neither_watched_nor_purged_nor_deleted(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        client.put(1)
        run_until(client, done=1)
        status = client.status()
        assert ([level.task for level in status.levels], status.strays) == (["double"], {})
        assert client.queue_names == [f"{domain}--double.fifo", f"{domain}--double--dead.fifo"]
        client.purge()
        client.delete()
    assert len(pushed(direct, words)) == 1


def test_list_is_read_by_others_and_not_by_the_client(
    words: str, on_redis: dict[str, Any], domain: str
) -> None:
    said = rf"output is 'rpush@{words}', a plain Redis list: it is read by .* LPOP {words}"
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        for read in (client.results, client.get_result):
            with pytest.raises(OptionError, match=said):
                read()


def test_source_that_is_called_by_hand_pushes_too(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    def source() -> int:
        return 7

    with piped(domain, on_redis, source, output=f"rpush@{words}") as client:
        client.submit()
    assert pushed(direct, words) == [7]


def test_task_sends_to_the_list_past_the_others(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    def short_cut(value: int) -> Output:
        return Output(value, task=f"output--rpush@{words}")

    with piped(domain, on_redis, short_cut, double, output=f"rpush@{words}") as client:
        client.put(1)
        client.run(drain=True)
    assert pushed(direct, words) == [1]


def test_pipeline_names_a_list(domain: str, words: str, on_redis: dict[str, Any], direct: Any) -> None:
    class Doubler(Pipeline):
        name = domain
        steps = (double,)
        output = f"rpush@{words}"

    with Doubler(**on_redis) as doubler:
        doubler.feed(4)
        doubler.run(drain=True)
        assert doubler.output == doubler.client.output == f"rpush@{words}"
    assert [value["twice"] for value in pushed(direct, words)] == [8]


def test_key_that_holds_something_else_ends_the_run_and_loses_nothing(
    domain: str, words: str, on_redis: dict[str, Any], direct: Any
) -> None:
    direct.set(words, "a text")
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        client.put(1)
        with pytest.raises(RunError, match=f"send rpush@{words} died: .*WRONGTYPE"):
            client.run(drain=True)
        direct.delete(words)
        client.run(drain=True)
    assert len(pushed(direct, words)) == 1


def test_command_line_names_a_list(shell: Shell, words: str, on_redis: dict[str, Any], direct: Any) -> None:
    shell.write("pipelines.py", DOUBLER.format(domain=shell.domain, **on_redis))
    shell.done("put", "doubler", "1", "2", "--group", "g")
    shell.done("run", "doubler", "--output", f"rpush@{words}", "--drain")
    assert pushed(direct, words) == [2, 4]
    said = shell.refused("results", "doubler", "--output", f"rpush@{words}")
    assert said.startswith(f"Error: output is 'rpush@{words}', a plain Redis list: ")
    assert pushed(direct, words) == [2, 4]


def test_command_line_refuses_a_list_on_another_broker(shell: Shell) -> None:
    said = shell.refused("run", "numbers", "--output", "rpush@words", "--drain")
    assert said.startswith("Error: output is 'rpush@words': allowed is on sqlite:///")


@pytest.mark.parametrize("name", ["memory", "sqlite", "sqs"])
def test_list_on_another_broker_is_refused(name: str, broker_arguments: Any) -> None:
    arguments = broker_arguments(name)
    said = "output is 'rpush@words': allowed is on .* the name of a queue; rpush@key, a plain list, needs a redis"
    with pytest.raises(OptionError, match=said):
        TaskClient("app", **arguments, output="rpush@words")
    with TaskClient("app", **arguments) as client, pytest.raises(OptionError, match=said):
        client.output = "rpush@words"


def test_copy_on_another_broker_has_to_name_another_output(
    domain: str, words: str, on_redis: dict[str, Any]
) -> None:
    with piped(domain, on_redis, double, output=f"rpush@{words}") as client:
        copy = client.on_broker("memory://")
    with copy:
        with pytest.raises(OptionError, match=rf"output is 'rpush@{words}': allowed is on memory://"):
            copy.run(drain=True)
        copy.output = "words"
        copy.put(1)
        copy.run(drain=True)
        assert copy.get_result(5) == {"twice": 2, "text": "é"}


@pytest.mark.parametrize("name", ["rpush@", "lpush@x", "rpush@a\nb", "@", "RPUSH@x", "rpush@" + "x" * 1_001])
def test_name_that_is_no_list_and_no_queue_is_refused(name: str, valkey: Valkey) -> None:
    with pytest.raises(
        OptionError, match=r"output is .*: allowed is a name, or rpush@key, with a key of 1 to"
    ):
        TaskClient("app", broker=valkey.url, output=name)


def test_trial_returns_what_would_be_pushed(domain: str, on_redis: dict[str, Any]) -> None:
    with piped(domain, on_redis, double, output="rpush@words") as client:
        assert client.call(3) == [{"twice": 6, "text": "é"}]
