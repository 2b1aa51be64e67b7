"""Effects: what settling returns, and the hub of the run applies at the end of a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from sqspipes.calls.held import Held


class Settled(NamedTuple):
    """Effect: these messages are not held any more."""

    helds: Sequence[Held]


class Lost(NamedTuple):
    """Effect: another process may have the lease of this message by now."""

    held: Held


class Refused(NamedTuple):
    """Effect: the call of this message is over, but the next queue will never take one of its outputs."""

    held: Held


Effect: TypeAlias = Settled | Lost | Refused
