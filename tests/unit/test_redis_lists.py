"""Plain lists at the Redis broker: bodies are pushed to them as they are, each id once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sqspipes.brokers.base import OK, Entry, Kind
from sqspipes.brokers.redis import RedisBroker
from sqspipes.defaults import DEDUPLICATION_SECONDS
from sqspipes.errors import BrokerError, BrokerUnavailableError, QueueMissingError
from tests.relay import Relay
from tests.valkey import Valkey

ONE, TWO = Entry('{"n":1}', "g", "1"), Entry('{"n":2}', "g", "2")


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex[:12]


@pytest.fixture
def key(prefix: str) -> str:
    """A list that no other test has."""
    return f"words of {prefix}"


@pytest.fixture
def open_port(prefix: str) -> Iterator[Callable[..., RedisBroker]]:
    """Opens brokers that are closed after the test."""
    with contextlib.ExitStack() as opened:

        def open_one(port: int, clock: Callable[[], float] | None = None) -> RedisBroker:
            broker = RedisBroker(f"redis://127.0.0.1:{port}?prefix={prefix}", clock=clock)
            opened.callback(broker.close)
            return broker

        yield open_one


@pytest.fixture
def direct(valkey: Valkey) -> Iterator[Any]:
    """The server, past the broker."""
    with contextlib.closing(redis.Redis.from_url(valkey.url, decode_responses=True)) as client:
        yield client


def test_bodies_are_pushed_in_order_and_as_they_are(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    assert open_port(valkey.port).send(f"rpush@{key}", [ONE, TWO]) == [OK, OK]
    assert direct.lrange(key, 0, -1) == ['{"n":1}', '{"n":2}']


def test_id_that_is_sent_again_pushes_nothing_for_five_minutes(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    now = 1_000_000.0
    broker = open_port(valkey.port, clock=lambda: now)
    assert broker.send(f"rpush@{key}", [ONE, ONE]) == [OK, OK]
    now += DEDUPLICATION_SECONDS - 1
    assert broker.send(f"rpush@{key}", [TWO, ONE]) == [OK, OK]
    assert direct.lrange(key, 0, -1) == [ONE.body, TWO.body]
    now += 2
    assert broker.send(f"rpush@{key}", [ONE]) == [OK]
    assert direct.llen(key) == 3


def test_id_is_known_when_the_list_was_read_and_is_gone(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    broker = open_port(valkey.port)
    broker.send(f"rpush@{key}", [ONE])
    assert direct.lpop(key) == ONE.body
    broker.send(f"rpush@{key}", [ONE])
    assert direct.exists(key) == 0


def test_lists_know_ids_of_their_own(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    broker = open_port(valkey.port)
    for name in (key, f"{key} too"):
        broker.send(f"rpush@{name}", [ONE])
    assert [direct.llen(name) for name in (key, f"{key} too")] == [1, 1]


def test_push_whose_answer_was_lost_is_repeated_and_pushes_once(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    with contextlib.closing(Relay(valkey.port)) as relay:
        broker = open_port(relay.port)
        broker.send(f"rpush@{key}", [ONE])
        relay.lose_answer()
        with pytest.raises(BrokerUnavailableError):
            broker.send(f"rpush@{key}", [TWO])
        assert broker.send(f"rpush@{key}", [TWO]) == [OK]
    assert direct.lrange(key, 0, -1) == [ONE.body, TWO.body]


def test_key_that_holds_something_else_refuses_and_no_id_is_known_then(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    direct.set(key, "a text")
    broker = open_port(valkey.port)
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        broker.send(f"rpush@{key}", [ONE])
    direct.delete(key)
    broker.send(f"rpush@{key}", [ONE])
    assert direct.lrange(key, 0, -1) == [ONE.body]


def test_what_no_queue_takes_no_list_takes(
    valkey: Valkey, key: str, direct: Any, open_port: Callable[..., RedisBroker]
) -> None:
    broker = open_port(valkey.port)
    (answer,) = broker.send(f"rpush@{key}", [Entry("", "g", "1")])
    assert (answer.kind, direct.exists(key)) == (Kind.NEVER, 0)


def test_list_is_no_queue(valkey: Valkey, key: str, open_port: Callable[..., RedisBroker]) -> None:
    broker = open_port(valkey.port)
    broker.send(f"rpush@{key}", [ONE])
    assert broker.names("") == []
    assert broker.message_bytes(f"rpush@{key}") == broker.limits.message_bytes
    for use in (broker.depth, broker.purge, broker.queue_url):
        with pytest.raises(QueueMissingError):
            use(f"rpush@{key}")
