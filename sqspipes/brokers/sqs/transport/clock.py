"""Clock: the server's time. A machine whose own clock is wrong signs with what the server's refusals say."""

from __future__ import annotations

import calendar
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from sqspipes.brokers.sqs.transport.signing import Signer, host_header
from sqspipes.support import lines

_logger = lines.logger(__name__)

#: Seconds by which a signature may be off before its clock is to blame; SQS allows 15 minutes, expires after 5.
SKEWED = 240.0

_CODES = {
    *("RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureException", "SignatureDoesNotMatch"),
    *("RequestInTheFuture", "AuthFailure", "InvalidSignature"),
}

# Signature expired: 20260101T000000Z is now earlier than 20260101T002500Z (20260101T003000Z - 5 min.)
_SAID = re.compile(r"\((\d{8}T\d{6}Z) [+-] \d+ min")

_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^,]+/\d{8}/([^/,]+)/([^/,]+)/aws4_request, SignedHeaders=([^,]+), "
)


class ServerClock:
    """The time of the server that one process's clients call."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        #: Seconds by which the server's clock is ahead of this machine's.
        self.ahead = 0.0

    def now(self) -> float:
        """Return the server's time."""
        return time.time() + self.ahead

    def corrected(self, error: ClientError, ahead: float) -> bool:
        """Set the clock by the server's refusal; whether the same request signed anew may be accepted.

        ``ahead`` is what the refused request was signed with.
        """
        found = offset(error)
        if found is None or abs(found - ahead) < SKEWED:
            return False
        if abs(found - self.ahead) >= SKEWED:
            _logger.warning("%s: requests are signed with the server's time", told(found))
        self.ahead = found
        return True

    def install(self, client: Any) -> None:
        """Have a boto3 client's requests signed with the server's time: botocore has this machine's alone."""
        client.meta.events.register("before-send.sqs", self._sign_anew)

    def _sign_anew(self, request: Any, **_: Any) -> None:
        if abs(self.ahead) < SKEWED:
            return
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        found = _SIGNED.match(headers.get("authorization", ""))
        if not found:
            return
        region, service, signed = found.groups()
        headers["host"] = host_header(urlsplit(request.url))
        names = set(signed.split(";")) - {"x-amz-date", "x-amz-security-token"}
        signer = Signer(
            urlsplit(request.url).path or "/", {name: headers[name] for name in names}, region, service
        )
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        for line in signer.signed(self._credentials.get_frozen_credentials(), body, self.now()).splitlines():
            name, value = line.split(": ", 1)
            request.headers[name] = value


def offset(error: ClientError) -> float | None:
    """Return the seconds by which the server's clock is ahead, if a refusal is about that and tells its time."""
    refusal = error.response.get("Error", {})
    if str(refusal.get("Code", "")).rpartition(".")[2] not in _CODES:
        return None
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        said = _SAID.search(str(refusal.get("Message", "")))
        return _seconds(said[1]) - time.time() if said else None


def told(ahead: float) -> str:
    """Return a sentence about the clock of a machine that the server's is ahead of."""
    minutes = round(abs(ahead) / 60)
    return f"this machine's clock is {minutes} minutes {'behind' if ahead > 0 else 'ahead of'} AWS"


def _seconds(stamp: str) -> float:
    try:
        return calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    except (ValueError, OverflowError):
        return time.time()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
