"""Torque's XML, read as it comes: several documents, a banner, control characters, cut short.  Pure.

``qstat -x`` and ``pbsnodes -x`` print XML in which anyone's variables appear with control characters and
Latin-1 bytes as they are, so that an XML parser refuses the whole document for one foreign job.  But ``<``,
``>`` and ``&`` in values are always escaped, so that records and their fields can be found by their tags
alone; a damaged one costs itself and not the others.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable

Fields = dict[str, str]

RECORD_BYTES_MAX = 4 << 20
"""A record that is longer than that is skipped: a job's variables may be long, but not that long."""
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_MARKS = re.compile(rb"<Data>|</Data>|<(?:Job|Node)>")


class Records:
    """Feed it bytes; it hands each whole record's fields to ``take``.

    ``names`` are the fields that are read: the first element of that name in a record.  Memory holds one
    record at a time; the cost is that of two searches over the bytes.
    """

    def __init__(self, names: Iterable[str], take: Callable[[Fields], None]) -> None:
        self._tags = [(name, b"<" + name.encode("ascii") + b">") for name in names]
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
        else:
            self._closing = b"</" + tag[1:]
        return True

    def _record(self) -> bool:
        """Go on to the end of the record; false when it has not come yet."""
        end = self._buffer.find(self._closing, self._at)
        if (broken := self._broken_at(end if end >= 0 else len(self._buffer))) >= 0:
            self.damaged += 1  # it never ended: go on with what follows it
            self._at, self._closing, self._skipping = broken, b"", False
            return True
        if end < 0:
            if len(self._buffer) - self._at > RECORD_BYTES_MAX:
                self._skipping = True
                self._at = len(self._buffer) - 16
            return False
        body = self._buffer[self._at : end]
        self._at, self._closing = end + len(self._closing), b""
        if self._skipping:
            self._skipping = False
            self.damaged += 1
        else:
            self._whole(body)
        return True

    def _broken_at(self, end: int) -> int:
        """Where a new record, or the document's end, comes before this record's own end; -1 if nowhere."""
        found = _MARKS.search(self._buffer, self._at, end)
        return found.start() if found is not None else -1

    def _whole(self, body: bytes) -> None:
        fields: Fields = {}
        for name, tag in self._tags:
            if (at := body.find(tag)) >= 0:
                start = at + len(tag)
                end = body.find(b"<", start)
                # In a whole record the next tag closes this one; anything else is no value.
                if body.startswith(b"</" + tag[1:], end):
                    fields[name] = text(body[start:end])
        self.records += 1
        self._take(fields)


def text(value: bytes) -> str:
    """A value as text: UTF-8 where it is that, else Latin-1, unescaped, without what XML forbids."""
    try:
        decoded = value.decode("utf-8")
    except UnicodeDecodeError:
        decoded = value.decode("latin-1")
    if "&" in decoded:
        decoded = html.unescape(decoded)
    return decoded.strip() if decoded.isprintable() else _FORBIDDEN.sub("", decoded).strip()
