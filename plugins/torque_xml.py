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
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Fields = dict[str, str]
Told = TypeVar("Told")
Remembered = dict[bytes, tuple[int, int, Told]]
"""What records told, by their first element: the length and the hash of each record, and what was made of it.
A server writes the id first, so that nobody else's record can be taken for ours, whatever its hash."""

RECORD_BYTES_MAX = 4 << 20
"""A record that is longer than that is skipped: a job's variables may be long, but not that long."""
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_COUNTING = ((b"<resources_used>", b"</resources_used>"), (b"<Walltime>", b"</Walltime>"))
_MARKS = re.compile(rb"</?(?:Data|Job|Node)>")


class Records(Generic[Told]):
    """Feed it bytes; it hands what stands in each whole record to ``take``: see ``fields_of``.

    What ``take`` makes of a record is ``remembered``.  Given as ``before`` with the next answer, it is handed
    to ``again`` instead of a record that stands there to the letter as it did, and to ``take`` beside one
    that has changed.

    Memory holds one record at a time; the cost is that of one search over the bytes, and a quarter of it over
    those of records that stood in the answer before.
    """

    def __init__(
        self,
        take: Callable[[bytes, Told | None], Told | None],
        again: Callable[[Told], None] = lambda told: None,
        before: Mapping[bytes, tuple[int, int, Told]] = {},
    ) -> None:
        self._take = take
        self._again = again
        self._before = before
        self._buffer = b""
        self._at = 0
        self._closing = b""
        self._skipping = False
        self._open = False
        self.remembered: Remembered[Told] = {}
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

    def _same(self) -> None:
        """Go on over whole records that are as before, to the first that is not or is not followed at once.

        Their length is known, so that nothing is searched; one loop, for thousands of them are usual.
        """
        buffer, closing = self._buffer, self._closing
        opening = b"<" + closing[2:]
        while self._closing:
            first = buffer[self._at : buffer.find(b"</", self._at)]
            known = self._before.get(first)
            if known is None:
                return
            end = self._at + known[0]
            if not buffer.startswith(closing, end) or hash(buffer[self._at : end]) != known[1]:
                return
            self.remembered[first] = known
            self.records += 1
            self._again(known[2])
            self._at = end + len(closing)
            if buffer.startswith(opening, self._at):
                self._at += len(opening)
            else:
                self._closing = b""

    def _record(self) -> bool:
        """Go on to the end of the record; false when it has not come yet."""
        if not self._skipping:
            self._same()
            if not self._closing:
                return True
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
            first = body[: body.find(b"</")]
            known = self._before.get(first)
            told = self._take(body, known[2] if known is not None else None)
            if told is not None:
                self.remembered[first] = (len(body), hash(body), told)
        return True


def steady(body: bytes) -> int:
    """The hash of a job's record without what counts up while the job runs."""
    for opening, closing in _COUNTING:
        start = body.find(opening)
        end = body.find(closing, start) if start >= 0 else -1
        if end >= 0:
            body = body[:start] + body[end:]
    return hash(body)


def fields_of(body: bytes, names: tuple[str, ...]) -> Fields:
    """What stands in a whole record: of each of these names the first element, where there is one."""
    letters = body.decode("latin-1")
    # As a rule nothing in a record is written otherwise than it is meant: one look for all of it.
    plain = letters.isascii() and letters.isprintable() and "&" not in letters
    first: dict[str, str | None] = {}
    for name, value, closing in _elements(names).findall(letters):
        if name not in first:
            read = value.strip() if plain else text(value.encode("latin-1"))
            first[name] = read if closing else None
    return {name: value for name, value in first.items() if value is not None}


@functools.cache
def _elements(names: tuple[str, ...]) -> re.Pattern[str]:
    """Elements of these names; in a whole record the next tag closes one, or it is no value."""
    return re.compile(rf"<({'|'.join(map(re.escape, names))})>([^<]*)(</\1>)?", re.ASCII)


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
