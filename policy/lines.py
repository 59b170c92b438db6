"""Which line of a TOML text sets which key?  No library keeps positions, so this small scanner does.

It expects text that tomli accepted and never raises: at something it does not understand it goes on with
the next line, and the fault is then told with the line of the table around it.
"""

from __future__ import annotations

import contextlib
import json
import re
from bisect import bisect_right

Path = tuple[str | int, ...]
"""The way to a value: names of keys, and numbers (from 0) into lists."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')[ \t]*""")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{1,2})?'
    r"|'''.*?'''(?:'{1,2})?"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")


def key_lines(text: str) -> dict[Path, int]:
    """Path -> line (from 1) on which the key, or the element of a list, stands.  Cost: the text's length."""
    scan = _Scan(text)
    with contextlib.suppress(RecursionError):  # lists nested a thousand deep: what was found will do
        scan.document()
    return scan.lines


def line_of(lines: dict[Path, int], path: Path) -> tuple[Path, int]:
    """The longest beginning of the path that stands in the file, and its line; ((), 1) if none does."""
    for length in range(len(path), 0, -1):
        if (line := lines.get(path[:length])) is not None:
            return path[:length], line
    return (), 1


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.position = 0
        self.lines: dict[Path, int] = {}
        self._breaks = [match.start() for match in re.finditer("\n", self.text)]
        self._tables: dict[Path, int] = {}

    def document(self) -> None:
        """Headers and ``key = value`` lines to the end of the text."""
        table: Path = ()
        self._skip(_BLANK)
        while self.position < len(self.text):
            before = self.position
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_REST_OF_LINE)
            self._skip(_BLANK)
            if self.position <= before:
                return

    def _header(self) -> Path:
        start, is_list = self.position, self._peek("[[")
        self.position += 2 if is_list else 1
        path: Path = ()
        names = self._names()
        for index, name in enumerate(names):
            path = (*path, name)
            self._note(path, start)
            if is_list and index == len(names) - 1:
                self._tables[path] = self._tables.get(path, -1) + 1
            if path in self._tables:
                path = (*path, self._tables[path])
        self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self.position
        path = table
        for name in self._names():
            path = (*path, name)
            self._note(path, start)
        if path != table and self._take("="):
            self._skip(_BLANK)
            self._value(path)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._list(path)
        elif self._take("{"):
            self._inline_table(path)
        elif not self._skip(_STRING):
            self._skip(_SCALAR)

    def _list(self, path: Path) -> None:
        for index in range(len(self.text)):
            self._skip(_BLANK)
            if self._take("]") or self.position >= len(self.text):
                return
            self._note((*path, index), self.position)
            before = self.position
            self._value((*path, index))
            self._skip(_BLANK)
            self._take(",")
            if self.position <= before:
                return

    def _inline_table(self, path: Path) -> None:
        while self.position < len(self.text):
            self._skip(_BLANK)
            if self._take("}"):
                return
            before = self.position
            self._pair(path)
            self._skip(_BLANK)
            self._take(",")
            if self.position <= before:
                return

    def _names(self) -> list[str]:
        names: list[str] = []
        while match := _KEY_PART.match(self.text, self.position):
            self.position = match.end()
            names.append(_unquoted(match.group(1)))
            if not self._take("."):
                break
        return names

    def _note(self, path: Path, position: int) -> None:
        self.lines.setdefault(path, bisect_right(self._breaks, position - 1) + 1)

    def _peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self.position)

    def _take(self, mark: str) -> bool:
        found = self._peek(mark)
        self.position += len(mark) if found else 0
        return found

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return match is not None


def _unquoted(name: str) -> str:
    if name.startswith("'"):
        return name[1:-1]
    if not name.startswith('"'):
        return name
    try:
        return str(json.loads(name))
    except ValueError:  # an escape that TOML has and JSON has not
        return name[1:-1]
