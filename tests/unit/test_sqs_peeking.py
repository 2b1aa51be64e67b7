"""Peeking: an idle socket is quiet, and bytes, an end and a closed socket are seen."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sqspipes.brokers.sqs.lean import peeking

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["recv", "select"])
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Two connected sockets, looked at by the system's own call and without it."""
    if request.param == "select":
        monkeypatch.setattr(peeking, "_recv", None)
    elif peeking._recv is None:
        pytest.fail("this system has no recv that can be called with the lock held")
    here, there = socket.socketpair()
    yield here, there
    here.close()
    there.close()


def test_idle_socket_has_nothing(pair: Pair) -> None:
    assert not peeking.is_readable(pair[0])


def test_bytes_are_seen_and_stay(pair: Pair) -> None:
    pair[1].sendall(b"late")
    assert peeking.is_readable(pair[0])
    assert pair[0].recv(10) == b"late"
    assert not peeking.is_readable(pair[0])


def test_end_of_the_other_side_is_seen(pair: Pair) -> None:
    pair[1].close()
    assert peeking.is_readable(pair[0])


def test_closed_socket_is_no_good(pair: Pair) -> None:
    pair[0].close()
    assert peeking.is_readable(pair[0])
