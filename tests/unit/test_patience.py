"""Patience: tried again until it is answered, to the last second that the caller has."""

from __future__ import annotations

import time

import pytest

from sqspipes.errors import BrokerUnavailableError, QueueMissingError
from sqspipes.operations.patience import patiently


def test_request_is_repeated_until_it_is_answered() -> None:
    tries = iter([BrokerUnavailableError("down"), BrokerUnavailableError("down"), None])

    def ask() -> str:
        error = next(tries)
        if error is not None:
            raise error
        return "answer"

    assert patiently(ask) == "answer"


def test_no_second_of_the_time_is_given_away() -> None:
    began = time.monotonic()
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        raise BrokerUnavailableError("down")

    with pytest.raises(BrokerUnavailableError):
        patiently(ask, 0.4)
    assert asked[-1] >= began + 0.4
    assert time.monotonic() < began + 5


def test_without_time_it_is_asked_once() -> None:
    asked: list[None] = []

    def ask() -> None:
        asked.append(None)
        raise BrokerUnavailableError("down")

    with pytest.raises(BrokerUnavailableError):
        patiently(ask, 0.0)
    assert len(asked) == 1


def test_what_cannot_pass_is_not_repeated() -> None:
    asked: list[None] = []

    def ask() -> None:
        asked.append(None)
        raise QueueMissingError("queue")

    with pytest.raises(QueueMissingError):
        patiently(ask)
    assert len(asked) == 1
