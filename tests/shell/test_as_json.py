"""JSON by the quick encoder or the standard library's: whichever writes it, it comes back as it was."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltd.daemon import as_json
from tiltd.daemon.core.model import Problem, Record

HOSTILE = "-rf $(x)\n\r\"'\\\x00\x1b[31m </script> é 断 \x7f\x85\u2028 \U0001f52c \udcff"
NAN = struct.unpack(">d", bytes.fromhex("fff0dead00beef00"))[0]
NO_NUMBERS = (math.nan, NAN, math.inf, -math.inf)
SPECIAL = (*NO_NUMBERS, 2**70, -(2**70), "\ud800", HOSTILE)
HARMLESS = (-0.0, 1e16, 5e-324, 1.7e308, -1.7e308, 2**64 - 1, -(2**63), None, True, "é 断", "Ë\x7f", "NaN")

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner), max_leaves=20
)


class Shape(Record):
    name: str
    numbers: tuple[float, ...] = ()
    problem: Problem | None = None


def as_told(value: Any) -> Any:
    """What the standard library, which is given plain values only, makes of it."""
    return json.loads(json.dumps(msgspec.to_builtins(value)))


@settings(max_examples=200, deadline=None)
@given(documents)
def test_any_document_comes_back_as_it_was(document: Any) -> None:
    for text in (as_json.encode(document), as_json.encode_ascii(document)):
        assert repr(json.loads(text)) == repr(document)
        assert repr(as_json.decode(text.encode() if isinstance(text, str) else text, Any)) == repr(document)


@pytest.mark.parametrize("special", [*SPECIAL, *HARMLESS], ids=ascii)
def test_records_within_documents_too(special: Any) -> None:
    shape = Shape(name=HOSTILE, problem=Problem(code="c", detail="plain"))
    for name in (HOSTILE, "plain"):
        document = {"value": [special], name: shape, "numbers": Shape(name=name, numbers=NO_NUMBERS)}
        assert repr(json.loads(as_json.encode(document))) == repr(as_told(document))
        for each in (document, {name: special}):
            text = as_json.encode_ascii(each)
            assert text.isascii() and repr(json.loads(text)) == repr(as_told(each))


@pytest.mark.parametrize("special", [*SPECIAL, *HARMLESS], ids=ascii)
def test_each_of_many_has_a_line_in_ascii(special: Any) -> None:
    values = ["a\nb", {"c\r\n": special}, [], Shape(name="x"), special]
    lines = as_json.ascii_lines(values)
    assert [repr(json.loads(line)) for line in lines] == [repr(as_told(value)) for value in values]
    assert all(line.isascii() and len(line.splitlines()) == 1 for line in lines)
    assert as_json.ascii_lines([]) == []


def test_the_quick_encoder_writes_what_is_nothing_special(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_json, "_exactly", lambda value: pytest.fail("three times the cost"))
    shape = Shape(name="Ë\x7f é 断", numbers=(-0.0, 1e16, 5e-324, 1e300, -1e300))
    assert msgspec.json.decode(as_json.encode({"shape": shape})) == as_told({"shape": shape})
    plain = msgspec.structs.replace(shape, name="plain")
    assert as_json.encode_ascii(plain).isascii() and len(as_json.ascii_lines([plain, 1])) == 2


@pytest.mark.parametrize(
    "content",
    [
        b'{"name": "x\\udce9\\n"}',
        b'{"name": "x", "numbers": [NaN, -Infinity, 1e400]}',
        b'\xef\xbb\xbf{"name": "x"}',
        '{"name": "é"}'.encode("utf-16"),
        b'{"name": "a", "name": "b", "more": 1}',
    ],
)
def test_what_the_standard_library_reads_is_read_as_a_record(content: bytes) -> None:
    raw = json.loads(content)
    found = as_json.decode(content, Shape)
    assert (found.name, repr(list(found.numbers))) == (raw["name"], repr(raw.get("numbers", [])))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"name": 1}', b"\xff", b'{"name": "x"'])
def test_what_is_no_such_record_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        as_json.decode(content, Shape)
