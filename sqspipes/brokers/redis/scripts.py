"""The Lua scripts: each action of the broker is one, and the server runs it as a whole or not at all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).with_name("lua")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the hash by which a server knows it that has seen it before."""

    text: bytes
    sha: str


class Scripts:
    """The scripts by the names of their files, read when the first one is needed."""

    def __init__(self) -> None:
        self._read: dict[str, Script] = {}

    def __getitem__(self, name: str) -> Script:
        script = self._read.get(name)
        if script is None:
            parts = [(_FOLDER / f"{part}.lua").read_bytes() for part in ("common", name)]
            text = b"\n".join(parts)
            script = self._read[name] = Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())
        return script
