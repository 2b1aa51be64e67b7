"""Message and Delivery: a value on its way, and a received message as its broker has it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqspipes.messages.ids import derived, legal


class Delivery(NamedTuple):
    """A received message, as the broker has it: opaque text, and the receipt to settle it with.

    ``id`` is the broker's message id: no other message of the broker ever has it, and this one has it at each
    receive. ``group`` is the group as the broker knows it, ``receives`` how often the
    message was received, this time included, ``sent`` when it was sent, in seconds since the epoch.
    """

    queue: str
    id: str
    receipt: str
    receives: int
    body: str
    group: str
    sent: float


@dataclass(frozen=True, slots=True)
class Death:
    """Why a message is a dead letter, and where it was: its level is the message's own priority.

    ``origin`` is the identity that the message had, for the redrive; empty where nobody wrote it down.
    """

    task: str
    error_type: str
    error: str
    traceback: str
    attempts: int
    died: float
    origin: str = ""


@dataclass(slots=True)
class Message:
    """A value on its way. ``group`` is None when it was put without one: then it is a group of its own.

    Nothing changes a message; it is not frozen, as that would take thrice as long to make.

    ``value`` is what the task gets; ``raw`` is the text of a body that could not be read, else None.
    ``extra`` holds keys of the body that this version does not know.

    ``identity`` is what tells a stored message from every other one, whatever its body says: the ids of all that
    comes of it are derived from it. It is the broker's message id; that of a message which a redrive put back is the
    identity of the message that died. It is empty as long as no broker has stored the message.
    """

    id: str
    value: Any
    group: str | None = None
    priority: int = 0
    first_put: float = field(default_factory=time.time)
    redrives: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    death: Death | None = None
    raw: str | None = None
    identity: str = ""

    @property
    def lane(self) -> str:
        """The group in the broker's alphabet."""
        return lane_and_key(self.id, self.group)[0]

    @property
    def key(self) -> str:
        """The deduplication id: what was put again with the same id and group has the same one.

        A message without a group has the lane of its id, and a group may have that very name: they are told apart.
        """
        return lane_and_key(self.id, self.group)[1]


def lane_and_key(id: str, group: str | None) -> tuple[str, str]:
    """Return the group and the deduplication id of a message in the broker's alphabet."""
    key = legal(id)
    if group is None:
        return key, key
    lane = legal(group)
    return lane, key if lane != key else derived("grouped", key)
