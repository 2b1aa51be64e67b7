"""The URL of a Redis broker, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from sqspipes.errors import OptionError

#: What every key begins with, unless the URL says otherwise.
PREFIX = "sqspipes"

#: Files for TLS, in redis-py's words; the server's certificate is always verified.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_LEGAL_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FORM = (
    "allowed is redis://[user:password@]host[:port][/db][?prefix=name], or the same with rediss:// for TLS"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the messages are: a server, one of its databases, and the prefix of every key."""

    host: str
    port: int = 6379
    db: int = 0
    user: str | None = None
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
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        return self._with(user)

    @property
    def full_url(self) -> str:
        """The URL with the password: for no log."""
        if self.password is None:
            return self.url
        user = f"{quote(self.user or '', safe='')}:{quote(self.password, safe='')}@"
        return self._with(user) + self.url.removeprefix(self.address)

    def _with(self, user: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{user}{host}:{self.port}/{self.db}"


def parse(url: str) -> Place:
    """Return the place that a URL names."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # The error's text may have the password in it.
        raise OptionError(f"broker is {shown(url)!r}: {_FORM}") from None
    if parts.scheme not in ("redis", "rediss") or not host or parts.fragment:
        raise OptionError(f"broker is {shown(url)!r}: {_FORM}")
    tls = parts.scheme == "rediss"
    options = _checked_query(url, parts.query, ("prefix", *_FILES) if tls else ("prefix",))
    return Place(
        host=host,
        port=6379 if port is None else port,
        db=_checked_database(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        prefix=_checked_prefix(url, options.pop("prefix", PREFIX)),
        tls=tls,
        files=tuple(sorted(options.items())),
    )


def shown(url: str) -> str:
    """Return any text that was meant to be a URL as errors may show it: without password and options."""
    before, at, after = url.rpartition("@")
    if at:
        scheme, colon, user = before.partition("://")
        name = user.partition(":")[0]
        # Without :// it is not known what is the user's name and what the password.
        before = f"{scheme}{colon}{name}:***" if colon else "***"
    return before + at + after.partition("?")[0]


def _checked_database(server: str, path: str) -> int:
    if path and not (path.isascii() and path.isdigit()):
        # It is not shown: in other programs' URLs the password is there.
        raise OptionError(
            f"broker is '{shown(server)}/***': after the last / allowed is the database's number"
        )
    return int(path or 0)


def _checked_query(url: str, query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in allowed:
            raise OptionError(
                f"broker is {shown(url)!r}: there is no option {option!r}, allowed is {', '.join(allowed)}"
            )
    return options


def _checked_prefix(url: str, prefix: str) -> str:
    if not _LEGAL_PREFIX.fullmatch(prefix):
        raise OptionError(
            f"broker is {shown(url)!r}: prefix is {prefix!r}, allowed are 1 to 64 letters, digits and -_.:"
        )
    return prefix
