"""Failures: what botocore would raise for a request that had no answer."""

from __future__ import annotations

import ssl

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)


def not_connected(url: str, cause: BaseException) -> Exception:
    """Return the error for a connection that could not be made, caused by what the socket raised."""
    failure: Exception
    if isinstance(cause, ssl.SSLError):
        failure = SSLError(endpoint_url=url, error=cause)
    elif isinstance(cause, TimeoutError):
        failure = ConnectTimeoutError(endpoint_url=url, error=cause)
    else:
        failure = EndpointConnectionError(endpoint_url=url, error=cause)
    failure.__cause__ = cause
    return failure


def not_answered(url: str, cause: BaseException) -> Exception:
    """Return the error for an answer that did not come in time, or not whole."""
    failure: Exception
    if isinstance(cause, TimeoutError):
        failure = ReadTimeoutError(endpoint_url=url, error=cause)
    else:
        failure = ConnectionClosedError(endpoint_url=url, error=cause)
    failure.__cause__ = cause
    return failure
