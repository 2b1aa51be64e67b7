"""The brokers, one a module; ``open_broker`` is the only code that imports them."""

from __future__ import annotations

from typing import Any

from sqspipes.brokers.base import Broker
from sqspipes.errors import OptionError
from sqspipes.support.checks import did_you_mean
from sqspipes.support.urls import shown


def open_broker(
    url: str,
    *,
    aws_key: str | None = None,
    aws_secret: str | None = None,
    aws_region: str | None = None,
    endpoint_url: str | None = None,
    session: Any = None,
    transport: str = "lean",
) -> Broker:
    """Return the broker of a URL: ``sqs://``, ``sqlite:///pipe.db``, ``memory://`` or ``redis://host:port/db``.

    It connects at its first use. The AWS arguments and ``transport`` are for ``sqs://`` alone.
    ``sqlite:///relative.db`` is below the working directory, ``sqlite:////var/lib/pipe.db`` absolute;
    ``?synchronous=NORMAL`` survives kill -9 but not a power cut. Each ``memory://`` broker has queues of its own.
    ``rediss://`` is Redis by TLS; ``?prefix=name`` keeps pipes apart that share a database.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "sqs":
        from sqspipes.brokers.sqs import SqsBroker

        return SqsBroker(
            url,
            aws_key=aws_key,
            aws_secret=aws_secret,
            aws_region=aws_region,
            endpoint_url=endpoint_url,
            session=session,
            transport=transport,
        )
    if scheme in ("sqlite", "memory"):
        from sqspipes.brokers.sqlite import SqliteBroker

        return SqliteBroker(url)
    if scheme in ("redis", "rediss"):
        return _redis_broker(url)
    hint = did_you_mean(scheme, ("sqs", "sqlite", "memory", "redis", "rediss"))
    allowed = "allowed are sqs://, sqlite:///path.db, memory:// and redis://host:port/db"
    raise OptionError(f"broker is {shown(url)!r}{hint}: {allowed}")


def _redis_broker(url: str) -> Broker:
    try:
        from sqspipes.brokers.redis import RedisBroker
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "redis":
            raise
        raise OptionError(
            f"broker is {shown(url)!r}: the package redis is missing, pip install 'redis>=5.0.1'"
        ) from error
    return RedisBroker(url)
