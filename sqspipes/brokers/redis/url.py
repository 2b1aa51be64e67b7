"""The URL of a Redis broker, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

from sqspipes.errors import OptionError
from sqspipes.support.urls import no_option, shown, split_or_none

#: What every key begins with, unless the URL says otherwise.
PREFIX = "sqspipes"

#: Files for TLS, in redis-py's words; the server's certificate is always verified.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_LEGAL_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FORM = (
    "allowed is redis://[user:password@]host[:port][/db][?prefix=name], or the same with rediss:// for TLS"
)


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """Where the messages are: a server, one of its databases, and the prefix of every key."""

    host: str
    port: int = 6379
    db: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    prefix: str = PREFIX
    tls: bool = False
    files: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        """The URL without the password."""
        options = [] if self.prefix == PREFIX else [("prefix", self.prefix)]
        query = urlencode([*options, *self.files])
        return f"{self.address}?{query}" if query else self.address

    @property
    def address(self) -> str:
        """The URL without the password and without options."""
        # A name without a password may be one.
        user = "" if self.user is None or self.password is None else f"{quote(self.user, safe='')}@"
        return self._with(user)

    @property
    def full_url(self) -> str:
        """The URL with the password: for no log."""
        if self.password is None and self.user is None:
            return self.url
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        user = f"{quote(self.user or '', safe='')}{password}@"
        return self._with(user) + self.url.removeprefix(self.address)

    def _with(self, user: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{user}{host}:{self.port}/{self.db}"


def parse(url: str) -> RedisPlace:
    """Return the place that a URL names."""
    parts = split_or_none(url)
    if parts is None or parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.fragment:
        raise OptionError(f"broker is {shown(url)!r}: {_FORM}")
    tls = parts.scheme == "rediss"
    options = _checked_query(url, parts.query, ("prefix", *_FILES) if tls else ("prefix",))
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise OptionError(f"broker is {shown(url)!r}: ssl_keyfile is given without ssl_certfile")
    return RedisPlace(
        host=parts.hostname,
        port=6379 if parts.port is None else parts.port,
        db=_checked_database(url, parts.path.strip("/")),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        prefix=_checked_prefix(url, options.pop("prefix", PREFIX)),
        tls=tls,
        files=tuple(sorted(options.items())),
    )


def _checked_database(url: str, path: str) -> int:
    if path and not (path.isascii() and path.isdigit()):
        # It is not shown: in other programs' URLs the password is there.
        raise OptionError(f"broker is {shown(url)!r}: after the last / allowed is the database's number")
    return int(path or 0)


def _checked_query(url: str, query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in allowed:
            there_is_none = no_option(option, query)
            raise OptionError(f"broker is {shown(url)!r}: {there_is_none}, allowed is {', '.join(allowed)}")
    return options


def _checked_prefix(url: str, prefix: str) -> str:
    if not _LEGAL_PREFIX.fullmatch(prefix):
        raise OptionError(
            f"broker is {shown(url)!r}: prefix is {prefix!r}, allowed are 1 to 64 letters, digits and -_.:"
        )
    return prefix
