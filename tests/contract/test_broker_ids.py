"""A message's id is its own: the same at each receive, and that of no other message in any queue, at any time."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sqspipes.brokers.base import Broker
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.messages.message import Delivery
from tests.conftest import BrokerArguments
from tests.contract.steps import made, put, take, take_all, take_one, with_dead_letters
from tests.valkey import Valkey


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def test_id_is_the_same_at_each_receive(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    for _ in range(2):
        broker.extend(queue, [(first.receipt, 0)])
        again = take_one(broker, queue)
        assert again.id == first.id
        first = again


def test_ids_differ_over_queues_and_groups(broker: Broker, domain: str) -> None:
    queues = made(broker, domain, "left", "right")
    for queue in queues:
        put(broker, queue, "a", "b")
        put(broker, queue, "c", "d", group="g")
    found = [id for queue in queues for id in ids(take_all(broker, queue, 4))]
    assert len(set(found)) == 8


def test_ids_are_not_given_again_after_a_purge(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    first = take_one(broker, queue)
    broker.purge(queue)
    put(broker, queue, "b")
    assert take_one(broker, queue).id != first.id


def test_ids_are_not_given_again_when_all_was_acknowledged(broker: Broker, domain: str) -> None:
    (queue,) = made(broker, domain)
    found: list[str] = []
    for body in "abc":
        put(broker, queue, body)
        found += ids(take_all(broker, queue, 1))
    assert len(set(found)) == 3


def test_dead_letter_and_what_comes_after_it_have_different_ids(broker: Broker, domain: str) -> None:
    queue, dead = with_dead_letters(broker, domain, 1)
    put(broker, queue, "a", "b", group="g")
    first = take_one(broker, queue)
    broker.extend(queue, [(first.receipt, 0)])
    second = take_one(broker, queue)
    assert second.body == "b"
    assert len({first.id, second.id}) == len({take_one(broker, dead).id, second.id}) == 2


# Stores that are made anew, or put back: at one time of the broker's clock, or a little later


class Clock:
    """A clock that goes when the test says so."""

    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def opened(arguments: dict[str, Any], clock: Clock) -> Iterator[Broker]:
    """Open a broker that goes by the clock."""
    kind: Any = RedisBroker if arguments["broker"].startswith("redis") else SqliteBroker
    with contextlib.closing(kind(arguments["broker"], clock=clock)) as broker:
        yield broker


def first_id(broker: Broker, domain: str) -> str:
    """Return the id of one more message of a queue."""
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    found = take(broker, queue)
    return found[-1].id


@pytest.mark.parametrize("broker", ["memory", "sqlite", "redis"])
def test_store_that_is_made_anew_gives_other_ids(
    broker: str,
    broker_arguments: BrokerArguments,
    domain: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    arguments, clock = broker_arguments(broker), Clock()
    with opened(arguments, clock) as one:
        first = first_id(one, domain)
    for file in tmp_path.glob("pipe.db*"):
        file.unlink()
    if broker == "redis":
        remove_keys(request.getfixturevalue("valkey"), arguments, "*")
    with opened(arguments, clock) as other:
        assert first_id(other, domain) != first


def test_two_files_give_different_ids(tmp_path: Path, domain: str) -> None:
    clock = Clock()
    with (
        opened({"broker": f"sqlite:///{tmp_path}/one.db"}, clock) as one,
        opened({"broker": f"sqlite:///{tmp_path}/two.db"}, clock) as two,
        opened({"broker": "memory://"}, clock) as three,
    ):
        assert len({first_id(broker, domain) for broker in (one, two, three)}) == 3


def test_file_that_is_put_back_from_a_copy_gives_other_ids(tmp_path: Path, domain: str) -> None:
    arguments, clock = {"broker": f"sqlite:///{tmp_path}/pipe.db"}, Clock()
    with opened(arguments, clock) as broker:
        made(broker, domain)
    shutil.copy(tmp_path / "pipe.db", tmp_path / "copy.db")
    with opened(arguments, clock) as broker:
        first = first_id(broker, domain)
    shutil.copy(tmp_path / "copy.db", tmp_path / "pipe.db")
    clock.now += 1
    with opened(arguments, clock) as broker:
        assert first_id(broker, domain) != first


def test_server_that_lost_its_last_numbers_gives_other_ids(
    broker_arguments: BrokerArguments, valkey: Valkey, domain: str
) -> None:
    arguments, clock = broker_arguments("redis"), Clock()
    with opened(arguments, clock) as broker:
        (queue,) = made(broker, domain)
        put(broker, queue, "a")
        (first,) = ids(take_all(broker, queue, 1))
        remove_keys(valkey, arguments, "*:last")
        clock.now += 1
        put(broker, queue, "b")
        assert ids(take_all(broker, queue, 1)) != [first]


def remove_keys(valkey: Valkey, arguments: dict[str, Any], pattern: str) -> None:
    """Remove keys of the test's own prefix."""
    with contextlib.closing(redis.Redis.from_url(valkey.url)) as direct:
        found = direct.keys(f"{arguments['broker'].partition('prefix=')[2]}:{pattern}")
        assert found
        direct.delete(*found)
