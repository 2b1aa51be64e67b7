"""The URL of an embedded broker, checked once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from sqspipes.errors import OptionError
from sqspipes.support.urls import no_option, shown, split_or_none, without_password

#: FULL survives a power cut, NORMAL a killed process. https://www.sqlite.org/pragma.html#pragma_synchronous
SYNCHRONOUS = ("FULL", "NORMAL")

_FORMS = "allowed are sqlite:///relative.db, sqlite:////absolute/path.db and memory://"


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """Where the messages are: a file, or memory when ``path`` is None."""

    path: str | None
    synchronous: str = "FULL"

    @property
    def url(self) -> str:
        """The URL by which any process of the machine finds the same place."""
        if self.path is None:
            return "memory://"
        option = "" if self.synchronous == "FULL" else f"?synchronous={self.synchronous}"
        return self.address + option

    @property
    def address(self) -> str:
        """The URL without options."""
        return "memory://" if self.path is None else f"sqlite:///{quote(os.fsencode(self.path))}"


def parse(url: str) -> SqlitePlace:
    """Return the place that a URL names, its path made absolute."""
    parts = split_or_none(url)
    if parts is None:
        raise OptionError(f"broker is {shown(url)!r}: {_FORMS}")
    if parts.scheme == "memory":
        if url != "memory://":
            raise OptionError(f"broker is {shown(url)!r}: a memory:// URL takes no name, path or option")
        return SqlitePlace(None)
    # Python drops line ends and tabs from a URL, and another file would be opened.
    plain = not any(character < " " or character == "\x7f" for character in url)
    if parts.scheme != "sqlite" or not plain or parts.fragment or url.endswith("#"):
        raise OptionError(f"broker is {shown(url)!r}: {_FORMS}")
    if not url[len("sqlite:") :].startswith("///"):
        meant = f"sqlite:///{parts.netloc}{parts.path}"
        hint = f", {shown(meant)} for this one" if meant != "sqlite:///" and "@" not in url else ""
        raise OptionError(f"broker is {shown(url)!r}: three slashes come before a path: {_FORMS}{hint}")
    path = os.fsdecode(unquote_to_bytes(parts.path))[1:]
    return SqlitePlace(_checked_path(url, path), _checked_query(url, parts.query))


def _checked_path(url: str, path: str) -> str:
    if not path or "\0" in path:
        raise OptionError(f"broker is {shown(url)!r}: the path is {path!r}, {_FORMS}")
    if path == ":memory:":
        raise OptionError(
            f"broker is {shown(url)!r}: the path is {path!r}, use memory:// for queues in memory"
        )
    told = without_password(path)
    if os.path.isdir(path):
        raise OptionError(f"broker is {shown(url)!r}: the path {told!r} is a directory, allowed is a file")
    folder, name = os.path.split(path)
    if not os.path.isdir(folder or "."):
        missing = without_password(os.path.abspath(folder))
        raise OptionError(
            f"broker is {shown(url)!r}: there is no directory {missing!r}, allowed is a file in one that exists"
        )
    if not name:
        raise OptionError(f"broker is {shown(url)!r}: the path {told!r} is a directory's, allowed is a file")
    # Beyond a link, ".." is not where the text says.
    folder = os.path.realpath(folder) if ".." in folder.split("/") else os.path.abspath(folder)
    return os.path.join(folder, name)


def _checked_query(url: str, query: str) -> str:
    synchronous = "FULL"
    for option, value in parse_qsl(query, keep_blank_values=True):
        if option != "synchronous":
            raise OptionError(f"broker is {shown(url)!r}: {no_option(option, query)}, allowed is synchronous")
        if value not in SYNCHRONOUS:
            raise OptionError(
                f"broker is {shown(url)!r}: synchronous is {value!r}, allowed are {' and '.join(SYNCHRONOUS)}"
            )
        synchronous = value
    return synchronous
