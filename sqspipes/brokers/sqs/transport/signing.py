"""Signing: AWS signature version 4 for requests that differ in time, body and credentials alone."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, quote

from botocore.utils import normalize_url_path

_DATE = "x-amz-date"
_TOKEN = "x-amz-security-token"

#: Bytes that hashlib takes without giving up the interpreter's lock: to get it back takes longer than to hash them.
#: https://docs.python.org/3/library/hashlib.html
_AT_ONCE = 2_047

#: Bytes from which on others may work meanwhile.
_MANY = 65_536


class Keys(Protocol):
    """Credentials at one moment, as botocore freezes them."""

    access_key: str
    secret_key: str
    token: str | None


class _Alike(NamedTuple):
    """What the signatures of one second have in common: hashes begun, and header lines but for the end."""

    second: int
    keys: tuple[str, str, str | None]
    canonical: Any
    mac: hmac.HMAC
    lines: str


class Signer:
    """Signs POST requests to one path with the same headers: ``headers`` are all signed ones but date and token.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, path: str, headers: Mapping[str, str], region: str, service: str) -> None:
        self._scope = f"{region}/{service}/aws4_request"
        self._region, self._service = region, service
        path = quote(normalize_url_path(path), safe="/~")
        self._bare = _canonical(path, headers, ())
        self._with_token = _canonical(path, headers, (_TOKEN,))
        self._alike = _Alike(-1, ("", "", None), hashlib.sha256(), hmac.new(b"", digestmod="sha256"), "")
        # One tuple, replaced as a whole, as is ``_alike``: threads need no lock.
        self._derived: tuple[str, str, hmac.HMAC] = ("", "", hmac.new(b"", digestmod="sha256"))

    def signed(self, keys: Keys, body: bytes, now: float) -> str:
        """Return the header lines that make a request a signed one; ``now`` is the server's time."""
        alike, of_keys = self._alike, (keys.access_key, keys.secret_key, keys.token)
        if alike.second != int(now) or alike.keys != of_keys:
            alike = self._alike = self._made_alike(int(now), keys)
        canonical, mac = alike.canonical.copy(), alike.mac.copy()
        canonical.update(_hashed(body).encode())
        mac.update(canonical.hexdigest().encode())
        return f"{alike.lines}{mac.hexdigest()}\r\n"

    def _made_alike(self, second: int, keys: Keys) -> _Alike:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        day = at[:8]
        if keys.token:
            token = " ".join(keys.token.split())
            before, between, after, names = self._with_token
            canonical = f"{before}{at}{between}{token}{after}"
            sent = f"X-Amz-Date: {at}\r\nX-Amz-Security-Token: {token}\r\n"
        else:
            before, between, after, names = self._bare
            canonical = f"{before}{at}{after}"
            sent = f"X-Amz-Date: {at}\r\n"
        scope = f"{day}/{self._scope}"
        mac = self._mac(keys.secret_key, day)
        mac.update(f"AWS4-HMAC-SHA256\n{at}\n{scope}\n".encode())
        lines = (
            f"{sent}Authorization: AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature="
        )
        of_keys = (keys.access_key, keys.secret_key, keys.token)
        return _Alike(second, of_keys, hashlib.sha256(canonical.encode()), mac, lines)

    def _mac(self, secret: str, day: str) -> hmac.HMAC:
        """Return what makes one signature with the key of a day."""
        known_secret, known_day, known = self._derived
        if known_secret == secret and known_day == day:
            return known.copy()
        key = f"AWS4{secret}".encode()
        for part in (day, self._region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        mac = hmac.new(key, digestmod="sha256")
        self._derived = (secret, day, mac)
        return mac.copy()


def host_header(server: SplitResult) -> str:
    """Return a URL's host as the header ``Host`` names it."""
    name = server.hostname or ""
    name = f"[{name}]" if ":" in name else name
    usual = {"http": 80, "https": 443}[server.scheme]
    return name if server.port in (None, usual) else f"{name}:{server.port}"


def _hashed(data: bytes) -> str:
    """Return the hash of some bytes."""
    if len(data) >= _MANY:
        return hashlib.sha256(data).hexdigest()
    found = hashlib.sha256()
    for place in range(0, len(data), _AT_ONCE):
        found.update(data[place : place + _AT_ONCE])
    return found.hexdigest()


def _canonical(path: str, headers: Mapping[str, str], more: tuple[str, ...]) -> tuple[str, str, str, str]:
    """Return the canonical request around its date and token, and the names of the signed headers."""
    values = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    values |= dict.fromkeys((_DATE, *more), "\0")
    names = ";".join(sorted(values))
    lines = "".join(f"{name}:{values[name]}\n" for name in sorted(values))
    # The date stands before the token, and between them what sorts so.
    before, between, *rest = f"POST\n{path}\n\n{lines}\n{names}\n".split("\0")
    if not more:
        return before, "", between, names
    return before, between, rest[0], names
