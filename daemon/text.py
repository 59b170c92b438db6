"""Names from the outside, made fit to be shown."""

from __future__ import annotations

_ALWAYS_ESCAPED = frozenset("\u2028\u2029\\")


def shown(name: str) -> str:
    """The name as one printable line: control and format characters, newlines, backslashes and the lone
    surrogates that stand for bytes that are no UTF-8 are backslash-escaped; all else stays as it is.

    Reversible by eye and safe in a terminal, a log line or a sentence.  Cost grows with the length.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escaped(character) for character in name)


def one_line(sentence: str) -> str:
    """A sentence as one printable line.  Backslashes stay: names in it may have been through :func:`shown`.

    Cost grows with the length.
    """
    if sentence.isprintable():
        return sentence
    return "".join(part if part == "\\" else _escaped(part) for part in sentence)


def _escaped(character: str) -> str:
    if character.isprintable() and character not in _ALWAYS_ESCAPED:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's stand-in for the byte code - 0xDC00
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
