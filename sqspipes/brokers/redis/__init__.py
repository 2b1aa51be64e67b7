"""Redis: the broker for Redis and Valkey; each action is one Lua script."""

from __future__ import annotations

from sqspipes.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
