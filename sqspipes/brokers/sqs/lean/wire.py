"""Wire: what botocore puts on the wire for this client, learnt from a request that is never sent.

Endpoint rules, partitions, FIPS, profiles, signing names and the user agent stay botocore's business: a request
is taken out of its hands where it would go to the network. Whatever in it is not known here, or cannot be signed
here to the same signature, is left to boto3.
"""

from __future__ import annotations

import calendar
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from botocore.awsrequest import AWSResponse, HeadersDict
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from sqspipes.brokers.sqs.transport.signing import Signer, host_header
from sqspipes.errors import BrokerError
from sqspipes.support import lines

_logger = lines.logger(__name__)

#: The calls that carry messages, and the one that counts them. Each may be repeated: a send has deduplication ids, a
#: receive an attempt id, and to delete or to extend twice is the same as once.
ACTIONS = (
    *("SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"),
    "GetQueueAttributes",
)

_THROUGH_BOTO3 = 'requests to SQS go through boto3, for ten times the CPU time, as with transport="boto3": %s'

_EVENT = "before-send.sqs."
_PROBE = "SendMessageBatch"
_PREFIX = "AmazonSQS."

#: Headers that are the same in every request, and those that each request has anew or needs none of. The signer of
#: awscrt, which botocore takes where it is installed, adds ``host``.
_FIXED = {"content-type", "user-agent", "x-amzn-query-mode"}
_ANEW = {
    *("authorization", "content-length", "x-amz-date", "x-amz-security-token", "x-amz-target"),
    *("amz-sdk-invocation-id", "amz-sdk-request", "host"),
}
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^,]+/\d{8}/([^/,]+)/([^/,]+)/aws4_request, SignedHeaders=([^,]+), .*"
)


class UnusualError(Exception):
    """Something is configured that only boto3 does; the text says what."""


@dataclass(frozen=True)
class Wire:
    """How requests look: the URL, the headers that do not change, who signs what, and TLS."""

    url: str
    server: SplitResult
    path: str
    headers: Mapping[str, str]
    signed: tuple[str, ...]
    region: str
    service: str
    tls: ssl.SSLContext | None

    def signer(self, action: str) -> Signer:
        """Return the signer of one action's requests."""
        every = {"host": self.host, "x-amz-target": _PREFIX + action, **self.headers}
        return Signer(self.path, {name: every[name] for name in self.signed}, self.region, self.service)

    def head(self, action: str) -> bytes:
        """Return an action's request up to the headers that differ."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {self.host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"X-Amz-Target: {_PREFIX}{action}", ""]
        return "\r\n".join(lines).encode()

    @property
    def host(self) -> str:
        """The server as the header ``Host`` names it."""
        return host_header(self.server)


def learnt_or_none(client: Any, credentials: Any) -> Wire | None:
    """Return the wire of a client, or None, and the reason in the log, when boto3 is to carry its requests."""
    try:
        return learnt(client, credentials)
    except (BotoCoreError, ClientError, BrokerError):
        # Credentials that cannot be had now: no request could be made at all.
        raise
    except UnusualError as error:
        _logger.warning(_THROUGH_BOTO3, error)
    except Exception as error:
        # What this botocore keeps elsewhere, or a handler that failed.
        _logger.warning(_THROUGH_BOTO3, f"a request cannot be learnt from it: {type(error).__name__}")
        _logger.debug("why requests to SQS go through boto3", exc_info=True)
    return None


def learnt(client: Any, credentials: Any) -> Wire:
    """Return the wire of a boto3 client; raises ``UnusualError`` when there is more to it than is done here."""
    config = client.meta.config
    if config.proxies or get_environ_proxies(client.meta.endpoint_url).keys() - {"no"}:
        raise UnusualError("there is a proxy")
    if config.client_cert:
        raise UnusualError("there is a client certificate")
    request = _caught(client)
    wire = _read(request, client._endpoint.http_session._verify)
    _compare(wire, request, credentials)
    return wire


class _Nothing:
    """The body of the answer to a request that was not sent."""

    def stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        yield b"{}"


def _caught(client: Any) -> Any:
    """Return the request that botocore would send, signed."""
    caught: list[Any] = []
    headers: Any = HeadersDict()

    def catch(request: Any, **_: Any) -> Any:
        caught.append(request)
        return AWSResponse(request.url, 200, headers, _Nothing())

    events = client.meta.events
    events.register_first(_EVENT + _PROBE, catch)
    try:
        client.send_message_batch(QueueUrl=client.meta.endpoint_url, Entries=[])
    finally:
        events.unregister(_EVENT + _PROBE, catch)
    # Who is told of a request before it is sent may answer in the server's place, as a simulator does.
    if not caught or any(events.emit(_EVENT + action, request=caught[0]) for action in ACTIONS):
        raise UnusualError("the session has handlers that look at requests")
    return caught[0]


def _read(request: Any, verify: Any) -> Wire:
    server = urlsplit(request.url)
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    found = _SIGNED.fullmatch(headers.get("authorization", ""))
    if not found:
        raise UnusualError("requests are not signed with signature version 4")
    if unknown := headers.keys() - _FIXED - _ANEW:
        raise UnusualError(f"requests have more headers: {', '.join(sorted(unknown))}")
    if any("\r" in value or "\n" in value for value in headers.values()):
        raise UnusualError("a header has more than one line")
    odd = server.query or server.username or not re.fullmatch(r"[!-~]+", request.url)
    if odd or server.scheme not in ("http", "https") or headers.get("x-amz-target") != _PREFIX + _PROBE:
        raise UnusualError("the endpoint has parts that are not known here")
    region, service, signed = found.groups()
    varying = {"x-amz-date", "x-amz-security-token"}
    return Wire(
        url=request.url,
        server=server,
        path=server.path or "/",
        headers={name: value for name, value in headers.items() if name in _FIXED},
        signed=tuple(name for name in signed.split(";") if name not in varying),
        region=region,
        service=service,
        tls=_tls(verify) if server.scheme == "https" else None,
    )


def _tls(verify: Any) -> ssl.SSLContext:
    """Return a context that trusts whom botocore trusts."""
    if not verify:
        raise UnusualError("certificates are not to be verified")
    try:
        context = ssl.create_default_context(cafile=get_cert_path(verify))
    except OSError as error:
        raise UnusualError(f"the CA bundle {verify!r} cannot be read: {error}") from error
    # From Python 3.13 on the default refuses certificates of private authorities that botocore takes.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def _compare(wire: Wire, request: Any, credentials: Any) -> None:
    """Refuse to sign what is not signed here as botocore signs it."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    at = calendar.timegm(time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
    if headers.get("host", wire.host) != wire.host:
        raise UnusualError("the host is another one than that of the endpoint")
    lines = wire.signer(_PROBE).signed(credentials.get_frozen_credentials(), request.body, at)
    if f"Authorization: {headers['authorization']}\r\n" not in lines:
        raise UnusualError("requests are signed in a way that is not known here")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
