"""URLs as errors, log lines and reprs show them: a secret is never in them, however the URL was written."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

#: A host and a port, and nothing that may be a password in their place.
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)?(:\d*)?", re.ASCII)

#: What a library's text has of a URL with a password.
_IN_TEXT = re.compile(r"(\w+://)[^\s\"'<>]*@", re.ASCII)

_HIDDEN = "***"


def split_or_none(url: str) -> SplitResult | None:
    """Return a URL's parts; None, and no error that shows some of it, where it has none or its port is no number."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018
    except ValueError:
        return None
    return parts


def shown(url: str) -> str:
    """Return any text that was meant to be a URL, without password, query and fragment.

    What stands where no name, host, port or path belongs may be a secret too, and is not shown.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        # It is not known what is the user's name and what the password.
        _, at, after = url.rpartition("@")
        return (f"{_HIDDEN}@" if at else "") + _cut(after)
    if scheme.lower() == "memory":
        return url if not rest else f"{scheme}://{_HIDDEN}"
    if scheme.lower() == "sqlite" and rest.startswith("/"):
        return f"{scheme}://{without_password(_cut(rest))}"
    user, at, rest = rest.rpartition("@")
    if at:
        name, colon, password = user.partition(":")
        # A name without a password may be one.
        user = f"{name}:{_HIDDEN}@" if name and password else f"{_HIDDEN}@"
    server, slash, path = _cut(rest).partition("/")
    server = server if _SERVER.fullmatch(server) else _HIDDEN
    if scheme.lower() not in ("sqlite", "http", "https") and not path.isdigit():
        path = path and _HIDDEN
    return f"{scheme}://{user}{server}{slash}{path}"


def without_password(path: str) -> str:
    """Return a path as it is shown: with ``user:password@`` in it, it was meant to be another URL."""
    return re.sub(r":[^/@]+@", f":{_HIDDEN}@", path)


def no_option(option: str, query: str) -> str:
    """Return what an error says of an option that there is not; a part of a password may look like one."""
    name = re.fullmatch(r"[A-Za-z_]{1,30}", option) and f"{option}=" in query and "@" not in query
    return f"there is no option {option!r}" if name else "it has an option that there is not"


def without_secrets(text: str) -> str:
    """Return a library's text without the users and passwords of the URLs in it."""
    return _IN_TEXT.sub(rf"\1{_HIDDEN}@", text)


def _cut(url: str) -> str:
    return re.split(r"[?#]", url, maxsplit=1)[0]
