"""What the chaos suite found in bodies and errors: it can be read and not be written, or not be printed."""

from __future__ import annotations

import pytest

from sqspipes.calls import error_text
from sqspipes.calls.entries import letter_entry
from sqspipes.errors import EncodingError
from sqspipes.messages.body import decode, encode
from sqspipes.messages.message import Message
from sqspipes.tasks.task import Task
from tests.builders import delivery_of, held_of

DEEP: list[object] = []
for _ in range(100_000):  # newer Pythons write more levels than they read
    DEEP = [DEEP]


@pytest.mark.parametrize("extra", [float("inf"), DEEP], ids=["infinite", "deep"])
def test_unknown_keys_that_cannot_be_written_are_an_error_and_still_a_dead_letter(extra: object) -> None:
    message = Message("id", 1, extra={"more": extra})
    with pytest.raises(EncodingError):
        encode(message)
    held = held_of()
    held.message = message
    held.delivery = delivery_of("not JSON")
    task = Task("domain", "task", 0, None)
    entry = letter_entry(task, held, error_text.death(task, ValueError("why"), 1), 100_000)
    letter = decode(delivery_of(entry.body))
    assert letter.raw == "not JSON"
    assert letter.death is not None
    assert letter.death.error == "why"


class UntraceableError(Exception):
    """Its traceback cannot be formatted."""

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise RecursionError


def test_error_whose_traceback_cannot_be_formatted_is_kept_from_the_log() -> None:
    assert error_text.loggable(UntraceableError()) is None
    assert error_text.loggable(ValueError("\ud800")) is None
    error = ValueError("plain")
    assert error_text.loggable(error) is error
