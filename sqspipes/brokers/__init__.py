"""The brokers: the port that each one keeps, and ``open_broker``, the only code that imports them.

A broker of another package is found by the entry point of its scheme, in the group ``sqspipes.brokers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqspipes.brokers.base import OK, Answer, Broker, Depth, Entry, Kind, Limits, QueueSpec
from sqspipes.errors import OptionError
from sqspipes.messages.message import Delivery
from sqspipes.support.checks import did_you_mean
from sqspipes.support.urls import shown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "GROUP",
    "OK",
    "Answer",
    "Broker",
    "Delivery",
    "Depth",
    "Entry",
    "Kind",
    "Limits",
    "QueueSpec",
    "open_broker",
]

#: The group of entry points in which packages name their brokers: the scheme, and a callable of the URL.
GROUP = "sqspipes.brokers"

_OWN = ("sqs", "sqlite", "memory", "redis", "rediss")


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
    ``rediss://`` is Redis by TLS; ``?prefix=name`` keeps pipes apart that share a database. Any other scheme is that
    of a package which names it in the entry points of the group ``sqspipes.brokers``.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "sqs":
        from sqspipes.brokers.sqs import SqsBroker

        keys = {"aws_key": aws_key, "aws_secret": aws_secret, "aws_region": aws_region}
        return SqsBroker(url, **keys, endpoint_url=endpoint_url, session=session, transport=transport)
    if scheme in ("sqlite", "memory"):
        from sqspipes.brokers.sqlite import SqliteBroker

        return SqliteBroker(url)
    if scheme in ("redis", "rediss"):
        return _redis_broker(url)
    from importlib.metadata import entry_points  # which is slow to import

    others = {point.name: point for point in entry_points(group=GROUP)}
    if scheme in others:
        return _broker_of_package(url, others[scheme])
    hint = did_you_mean(scheme, (*_OWN, *others))
    more = "".join(f", {name}://" for name in sorted(others))
    allowed = f"allowed are sqs://, sqlite:///path.db, memory:// and redis://host:port/db{more}"
    raise OptionError(f"broker is {shown(url)!r}{hint}: {allowed}")


def _broker_of_package(url: str, point: EntryPoint) -> Broker:
    """Return the broker that another package makes of a URL."""
    where = f"the entry point {point.name} = {point.value}"
    try:
        make = point.load()
    except Exception as error:
        raise OptionError(f"broker is {shown(url)!r}: {where} cannot be loaded: {error}") from error
    broker = make(url)
    if not isinstance(broker, Broker):
        raise OptionError(
            f"broker is {shown(url)!r}: {where} returned a {type(broker).__name__}: "
            "allowed is a sqspipes.brokers.Broker"
        )
    return broker


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
