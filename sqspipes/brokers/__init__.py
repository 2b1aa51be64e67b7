"""The brokers, one a module; ``open_broker`` is the only code that imports them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from sqspipes.brokers.base import Broker
from sqspipes.errors import OptionError


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
    """Return the broker of a URL: ``sqs://``, ``sqlite:///pipe.db`` or ``memory://``.

    It connects at its first use. The AWS arguments and ``transport`` are for ``sqs://`` alone.
    ``sqlite:///relative.db`` is below the working directory, ``sqlite:////var/lib/pipe.db`` absolute;
    ``?synchronous=NORMAL`` survives kill -9 but not a power cut. Each ``memory://`` broker has queues of its own.
    """
    scheme = urlsplit(url).scheme
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
    raise OptionError(f"broker is {url!r}: allowed are sqs://, sqlite:///path.db and memory://")
