"""The URL of a Redis broker: what it may say, and that its password shows nowhere."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sqspipes import TaskClient
from sqspipes.brokers import open_broker
from sqspipes.brokers.redis import RedisBroker
from sqspipes.brokers.redis.url import RedisPlace, parse
from sqspipes.errors import OptionError
from sqspipes.support.urls import shown

_ROOT = Path(__file__).parents[2]


def test_url_says_where_the_server_is() -> None:
    assert parse("redis://me:pass%40word@example.org:6380/3?prefix=mine") == RedisPlace(
        host="example.org", port=6380, db=3, user="me", password="pass@word", prefix="mine"
    )


def test_port_database_and_prefix_may_be_left_out() -> None:
    assert parse("redis://localhost") == RedisPlace(host="localhost", port=6379, db=0, prefix="sqspipes")


def test_rediss_takes_the_files_of_tls() -> None:
    place = parse("rediss://localhost?ssl_ca_certs=/etc/ca.pem")
    assert (place.tls, place.files) == (True, (("ssl_ca_certs", "/etc/ca.pem"),))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("redis://", "host"),
        ("redis:///0", "host"),
        ("redis://localhost:port", "host"),
        ("redis://localhost#part", "host"),
        ("redis://localhost/name", "allowed is the database.s number"),
        ("redis://localhost/-1", "allowed is the database.s number"),
        ("redis://localhost?prefix=", "1 to 64 letters"),
        ("redis://localhost?prefix=a b", "1 to 64 letters"),
        ("redis://localhost?timeout=3", "'timeout', allowed is prefix"),
        ("redis://localhost?ssl_ca_certs=file", "'ssl_ca_certs', allowed is prefix"),
    ],
)
def test_url_that_is_not_allowed_is_refused(url: str, allowed: str) -> None:
    with pytest.raises(OptionError, match=allowed):
        open_broker(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@localhost:port",
        "redis://me:secret@localhost/name",
        "redis://0@localhost/secret",
        "redis://me:secret@localhost?prefix=",
        "redis://me:secret@[localhost",
        "redis://me:se/cret@localhost",
        "redis://localhost?password=secret",
        "reddis://:secret@localhost",
        "redis:secret@localhost",
    ],
)
def test_password_of_a_refused_url_is_not_shown(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        open_broker(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_what_is_no_secret_of_a_url_is_shown() -> None:
    assert shown("redis://me:secret@localhost:1/2?prefix=x") == "redis://me:***@localhost:1/2"
    assert shown("reddis://localhost") == "reddis://localhost"


def test_broker_shows_no_password() -> None:
    broker = open_broker("redis://me:secret@localhost:6380/3?prefix=mine")
    assert broker.url == "redis://me@localhost:6380/3?prefix=mine"
    assert "secret" not in repr(broker) + repr(parse("redis://:secret@localhost"))


def test_client_shows_no_password() -> None:
    assert "secret" not in repr(TaskClient("domain", broker="redis://:secret@localhost"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:pass%40word@example.org:6380/3?prefix=mine",
        "redis://:secret@[::1]",
        "rediss://localhost?ssl_ca_certs=/etc/ca.pem",
        "redis://localhost",
    ],
)
def test_full_url_leads_to_the_same_place(url: str) -> None:
    assert parse(open_broker(url).full_url) == parse(url)


def test_client_takes_its_password_to_another_process() -> None:
    client = TaskClient("domain", broker="redis://:secret@localhost:6380")
    broker = vars(pickle.loads(pickle.dumps(client)))["_broker"]
    assert isinstance(broker, RedisBroker)
    assert broker.full_url == "redis://:secret@localhost:6380/0"


_WITHOUT = """
import sys
sys.modules["redis"] = None
from sqspipes.brokers import open_broker
from sqspipes.errors import OptionError
try:
    open_broker("redis://:secret@localhost")
except OptionError as error:
    print(error)
"""


def test_missing_package_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT], check=True, cwd=_ROOT, capture_output=True, text=True, timeout=60
    )
    assert "pip install 'redis>=5.0.1'" in ended.stdout and "secret" not in ended.stdout
