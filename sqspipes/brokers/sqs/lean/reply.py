"""Reply: one HTTP/1.1 answer, read from pieces of bytes as they come; as much of HTTP as an answer of SQS needs.

Nothing here reads or waits: whoever has the socket sends the pieces to a generator.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

#: Bytes of an answer's head at most, of a line in a body, and of what follows a body.
_LONGEST_HEAD = 16_384

#: Bytes of an answer's body at most: ten messages of the largest size have less, with six bytes in JSON for each.
_LONGEST_BODY = 64 * 1_048_576

# What is not written as it has to be is refused: two readers that understand an answer differently are how one answer
# becomes two. https://www.rfc-editor.org/rfc/rfc9112
_TEXT = rb"[\t -~\x80-\xff]*"
_STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: " + _TEXT + rb")?")
_HEADER = re.compile(rb"([-!#$%&'*+.^_`|~0-9a-zA-Z]+):(" + _TEXT + rb")")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})(?:;" + _TEXT + rb")?[ \t]*")

#: Headers that decide where an answer ends: they may not be there twice.
_FRAMING = ("content-length", "transfer-encoding")


@lru_cache(maxsize=200)
def _header(line: bytes) -> tuple[str, str] | None:
    """Return the name and the value of a header, None if it is none. Most lines are the same in each answer."""
    found = _HEADER.fullmatch(line)
    return None if found is None else (found[1].decode().lower(), found[2].strip(b" \t").decode("latin-1"))


class BrokenAnswerError(Exception):
    """The connection ended before the answer did, or the answer is not HTTP; ``begun``: some of it came."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Answered(NamedTuple):
    """A whole answer; ``keeps``: another request may follow it on the same connection."""

    reply: Reply
    keeps: bool


#: Takes pieces of bytes, an empty one for the end of the connection, and returns what it has read.
Reading: TypeAlias = Generator[None, bytes, Answered]


def reading() -> Reading:
    """Return a generator that reads one answer. To be sent pieces, after its first ``next``.

    Raises ``BrokenAnswerError``.
    """
    return _AnswerReader().answer()


def at_once(piece: bytes) -> Answered | None:
    """Return the answer that a piece is, as nearly all are; None where it has to be read step by step."""
    end = piece.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    first, *lines = piece[: max(0, end)].split(b"\r\n")
    if not (first.startswith(b"HTTP/1.1 200 ") and _STATUS.fullmatch(first)):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        header = _header(line)
        if header is None or header[0] in headers:
            return None
        headers[header[0]] = header[1]
    length = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (
        _LENGTH.fullmatch(length.encode()) and len(piece) - end - 4 == int(length)
    ):
        return None
    return Answered(
        Reply(200, headers, piece[end + 4 :]), "close" not in headers.get("connection", "").lower()
    )


class _AnswerReader:
    """The state of reading one answer."""

    __slots__ = ("_begun", "_rest")

    def __init__(self) -> None:
        self._begun = False
        self._rest = b""

    def answer(self) -> Reading:
        version, status, headers = yield from self._head()
        body, ended = yield from self._body(version, status, headers)
        said = headers.get("connection", "").lower()
        keeps = "close" not in said and (version == b"1.1" or "keep-alive" in said)
        return Answered(Reply(status, headers, body), keeps and ended and not self._rest)

    def _head(self) -> Generator[None, bytes, tuple[bytes, int, dict[str, str]]]:
        """Return the version of HTTP, the status and the headers."""
        while True:
            first, *lines = (yield from self._until(b"\r\n\r\n")).split(b"\r\n")
            found = _STATUS.fullmatch(first)
            if not found:
                raise self._broken(f"the answer is not HTTP: {first[:80]!r}")
            version, status = found[1], int(found[2])
            headers = self._headers(lines)
            if status == 101:
                raise self._broken("the server wants another protocol")
            if status >= 200:
                return version, status, headers

    def _headers(self, lines: list[bytes]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            header = _header(line)
            if header is None:
                raise self._broken(f"not a header: {line[:80]!r}")
            name, value = header
            if name in headers:
                if name in _FRAMING:
                    raise self._broken(f"two headers {name}")
                value = f"{headers[name]}, {value}"
            headers[name] = value
        return headers

    def _body(
        self, version: bytes, status: int, headers: dict[str, str]
    ) -> Generator[None, bytes, tuple[bytes, bool]]:
        """Return the body, and whether it says itself where it ends."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None and (coding.lower() != "chunked" or length is not None or version != b"1.1"):
            raise self._broken(
                f"Transfer-Encoding is {coding[:80]!r}, HTTP {version!r}, length {length!r:.80}"
            )
        if length is not None and not _LENGTH.fullmatch(length.encode()):
            raise self._broken(f"Content-Length is {length[:80]!r}")
        if status in (204, 304):
            return b"", True
        if coding is not None:
            return (yield from self._chunks()), True
        if length is None:
            return (yield from self._until_closed()), False
        self._check_length(int(length))
        return (yield from self._exactly(int(length))), True

    def _chunks(self) -> Generator[None, bytes, bytes]:
        chunks, whole = [], 0
        while True:
            line = yield from self._until(b"\r\n")
            found = _CHUNK.fullmatch(line)
            if not found:
                raise self._broken(f"not the size of a chunk: {line[:80]!r}")
            count = int(found[1], 16)
            whole += count
            self._check_length(whole)
            if count == 0:
                break
            chunks.append((yield from self._exactly(count)))
            if (yield from self._exactly(2)) != b"\r\n":
                raise self._broken("a chunk is longer than its size")
        most = _LONGEST_HEAD
        while line := (yield from self._until(b"\r\n", most)):
            self._headers([line])
            most -= len(line)
        return b"".join(chunks)

    def _check_length(self, length: int) -> None:
        if length > _LONGEST_BODY:
            raise self._broken(f"the answer is longer than {_LONGEST_BODY:,} bytes")

    def _until(self, mark: bytes, most: int = _LONGEST_HEAD) -> Generator[None, bytes, bytes]:
        have = self._rest
        while (place := have.find(mark, 0, max(most, 0) + len(mark))) < 0:
            if len(have) > most + len(mark):
                raise self._broken(f"the answer has no end of line in {most:,} bytes")
            have += yield from self._piece()
        self._rest = have[place + len(mark) :]
        return have[:place]

    def _exactly(self, count: int) -> Generator[None, bytes, bytes]:
        have = self._rest
        if len(have) < count:
            pieces, missing = [have], count - len(have)
            while missing > 0:
                piece = yield from self._piece()
                pieces.append(piece)
                missing -= len(piece)
            have = b"".join(pieces)
        self._rest = have[count:]
        return have[:count] if len(have) > count else have

    def _until_closed(self) -> Generator[None, bytes, bytes]:
        pieces, whole = [self._rest], len(self._rest)
        self._rest = b""
        self._check_length(whole)
        while piece := (yield):
            pieces.append(piece)
            whole += len(piece)
            self._check_length(whole)
        return b"".join(pieces)

    def _piece(self) -> Generator[None, bytes, bytes]:
        piece = yield
        if not piece:
            raise self._broken("the server closed the connection")
        self._begun = True
        return piece

    def _broken(self, text: str) -> BrokenAnswerError:
        return BrokenAnswerError(text, begun=self._begun)
