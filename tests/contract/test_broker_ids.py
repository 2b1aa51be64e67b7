"""A message's id is no other's, also where a store was made anew, or put back from a copy."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sqspipes.brokers.base import Broker
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.testing.broker_contract.ids import ids
from sqspipes.testing.broker_contract.steps import made, put, take, take_all
from tests.conftest import BrokerArguments
from tests.valkey import Valkey

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
