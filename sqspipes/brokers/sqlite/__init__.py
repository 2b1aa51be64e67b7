"""SQLite: the embedded broker, in a file that the processes of a machine share, or in memory."""

from __future__ import annotations

from sqspipes.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker"]
