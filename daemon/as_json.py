"""Records and documents as JSON that comes back as it was: quickly, wherever that loses nothing.

The quick encoder refuses lone surrogates (names that are no UTF-8) and integers beyond 64 bits, and silently
writes null for NaN and infinities.  What has any of these is left to the standard library's, at three times
the cost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_quick = msgspec.json.Encoder()
_packed = msgspec.msgpack.Encoder().encode
_no_number = re.compile(rb"\xcb[\x7f\xff]").search


def encode(value: Any) -> str:
    """A record, or plain values with or without records in them; as compact as can be."""
    text = _quickly(_quick.encode, value)
    return _exactly(value) if text is None else text.decode()


def encode_ascii(value: Any) -> bytes:
    """As :func:`encode`, in ASCII: all other characters, half ones too, as escapes."""
    text = _quickly(_quick.encode, value)
    return text if text is not None and text.isascii() else _exactly(value).encode("ascii")


def ascii_lines(values: Iterable[Any]) -> list[str]:
    """Each as by :func:`encode_ascii`; together, since for many small ones the calls would cost most.  None
    has a newline in it: JSON escapes those."""
    every = list(values)
    text = _quickly(_quick.encode_lines, every)
    if text is not None and text.isascii():
        return text.decode().splitlines()
    return [_exactly(value) for value in every]


def decode(content: bytes, kind: type[T]) -> T:
    """What the standard library reads, as records or values of a type: also half a character, NaN, a number
    beyond all, another encoding.  Raises ValueError and RecursionError."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:
        return msgspec.convert(json.loads(content), kind)


def _exactly(value: Any) -> str:
    return json.dumps(value, default=msgspec.to_builtins, separators=(",", ":"))


def _quickly(write: Callable[[Any], bytes], value: Any) -> bytes | None:
    """None where it may have lost something.

    MessagePack keeps what is no number: 0xcb and the eight bytes of a double, which then begin with 0x7f or
    0xff, and in text neither follows 0xcb.  To look for these costs a quarter of reading the JSON again.
    Numbers beyond 1e303 look alike, and other bytes may by chance; that costs time and nothing else.
    """
    try:
        text, packed = write(value), _packed(value)
    except (UnicodeEncodeError, OverflowError, TypeError, msgspec.MsgspecError):
        return None
    return None if _no_number(packed) else text
