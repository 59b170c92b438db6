"""Torque's XML, read as it comes: several documents, a banner, control characters, cut short.  Pure.

``qstat -x`` and ``pbsnodes -x`` print XML in which anyone's variables appear with control characters and
Latin-1 bytes as they are, so that an XML parser refuses the whole document for one foreign job.  But ``<``,
``>`` and ``&`` in values are always escaped, so that records and their fields can be found by their tags
alone; a damaged one costs itself and not the others.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Iterable

Fields = dict[str, str]

RECORD_BYTES_MAX = 4 << 20
"""A record that is longer than that is skipped: a job's variables may be long, but not that long."""
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_MARKS = re.compile(rb"</?(?:Data|Job|Node)>")


class Records:
    """Feed it bytes; it hands what stands in each whole record to ``take``: see ``fields_of``.

    Memory holds one record at a time; the cost is that of one search over the bytes.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._buffer = b""
        self._at = 0
        self._closing = b""
        self._skipping = False
        self._open = False
        self.documents = 0
        self.records = 0
        self.damaged = 0
        self.anything = False

    def feed(self, piece: bytes) -> None:
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        self.anything = self.anything or bool(piece.strip())
        while self._record() if self._closing else self._mark():
            pass

    @property
    def complete(self) -> bool:
        """Whether at least one document came, and every one to its end, with no record damaged."""
        return self.documents > 0 and not self._open and not self._closing and not self.damaged

    def _mark(self) -> bool:
        """Go on to the next tag that matters; false when it has not come yet."""
        found = _MARKS.search(self._buffer, self._at)
        if found is None:
            # A tag may be cut in two by the pipe.
            self._at = max(self._at, len(self._buffer) - len(b"</Data>") + 1)
            return False
        self._at, tag = found.end(), found.group()
        if tag == b"<Data>":
            self.damaged += self._open  # another one before the end of the last, which was cut short
            self._open = True
            self.documents += 1
        elif tag == b"</Data>":
            self._open = False
        elif not tag.startswith(b"</"):
            self._closing = b"</" + tag[1:]
        return True

    def _record(self) -> bool:
        """Go on to the end of the record; false when it has not come yet."""
        found = _MARKS.search(self._buffer, self._at)
        if found is None:
            if len(self._buffer) - self._at > RECORD_BYTES_MAX:
                self._skipping = True
                self._at = len(self._buffer) - 16
            return False
        whole = found.group() == self._closing
        body = self._buffer[self._at : found.start()] if whole and not self._skipping else b""
        # A new record, or the document's end, before its own: it never ended, so go on with what follows it.
        self._at = found.end() if whole else found.start()
        self._closing = b""
        if self._skipping or not whole:
            self._skipping = False
            self.damaged += 1
        else:
            self.records += 1
            self._take(body)
        return True


def fields_of(body: bytes, names: Iterable[str]) -> Fields:
    """What stands in a whole record: of each of these names the first element, where there is one."""
    return {name: found for name in names if (found := field(body, name)) is not None}


def field(body: bytes, name: str) -> str | None:
    """The first element of that name in a whole record; costs a search up to there."""
    tag = _tag(name)
    at = body.find(tag)
    if at < 0:
        return None
    start = at + len(tag)
    end = body.find(b"<", start)
    # In a whole record the next tag closes this one; anything else is no value.
    return text(body[start:end]) if body.startswith(b"</" + tag[1:], end) else None


@functools.cache
def _tag(name: str) -> bytes:
    return f"<{name}>".encode("ascii")


def text(value: bytes) -> str:
    """A value as text: UTF-8 where it is that, else Latin-1, unescaped, without what XML forbids."""
    try:
        decoded = value.decode("utf-8")
    except UnicodeDecodeError:
        decoded = value.decode("latin-1")
    if "&" in decoded:
        decoded = html.unescape(decoded)
    return decoded.strip() if decoded.isprintable() else _FORBIDDEN.sub("", decoded).strip()
