"""Builders of what unit tests are about: deliveries and held messages, with all that a test does not care for."""

from __future__ import annotations

import itertools
import re
from typing import Any

from sqspipes.calls.held import Held
from sqspipes.messages.message import Delivery, Message

_numbers = itertools.count(1)


def shown(value: Any) -> str:
    """Return a value as a test's name shows it: the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def delivery_of(
    body: str = "null",
    *,
    queue: str = "domain--task.fifo",
    id: str | None = None,
    receipt: str | None = None,
    group: str = "group",
    receives: int = 1,
) -> Delivery:
    """Return a delivery, of a message of its own unless the id is given."""
    number = next(_numbers)
    return Delivery(
        queue=queue,
        id=f"broker-{number}" if id is None else id,
        receipt=f"receipt-{number}" if receipt is None else receipt,
        receives=receives,
        body=body,
        group=group,
        sent=1_700_000_000.0,
    )


def held_of(
    value: Any = None, *, level: int = 0, lease: float = 60.0, received: float = 0.0, **delivery: Any
) -> Held:
    """Return a held message; each level is a queue."""
    delivery.setdefault("queue", f"domain--task--p{level}.fifo" if level else "domain--task.fifo")
    one = delivery_of(**delivery)
    message = Message(id=one.id, value=value, group=one.group, identity=one.id)
    return Held(one, message, level, lease, received)
