"""Amounts with units: what is read, what is refused and in which words."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltd.daemon.core import units
from tiltd.daemon.core.units import parse_bytes, parse_seconds, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("2.6GB", 2_600_000_000),
        ("2.6 GB", 2_600_000_000),
        ("0", 0),
        ("0GB", 0),
        (0, 0),
        (2600, 2600),
        ("2600", 2600),
        ("1kB", 1000),
        ("1KiB", 1024),
        ("1MiB", 1 << 20),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("3TB", 3 * 10**12),
        ("0.5B", 1),
        (" 7MB ", 7_000_000),
    ],
)
def test_bytes_are_read_exactly(text: str | int, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2.6G", 'did you mean "GB"'),
        ("2.6gb", 'did you mean "GB"'),
        ("1KB", 'did you mean "kB"'),
        ("1kb", 'did you mean "kB"'),
        ("1gib", 'did you mean "GiB"'),
        ("1Gi", 'did you mean "GiB"'),
        ("4 bytes", 'did you mean "B"'),
        ("4 furlong", "unknown unit"),
        ("GB", "no amount"),
        ("", "no amount"),
        ("-1GB", "no amount"),
        ("1e9GB", "no amount"),
        ("1GB\n2GB", "no amount"),
        ("\uff11GB", "no amount"),
        ("9" * 20 + "TB", "more than any"),
        ("9" * 4000, "no amount"),
        (-1, "no amount"),
        (True, "no amount"),
        (1.5, "no amount"),
        (None, "no amount"),
    ],
)
def test_bytes_are_refused_with_a_sentence(text: str | int, words: str) -> None:
    with pytest.raises(ValueError, match=r"allowed is .*GB") as error:
        parse_bytes(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 260


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90min", 5400),
        ("1h30min", 5400),
        ("1h 30min", 5400),
        ("0.5s", 0.5),
        ("2d", 172800),
        ("1d2h3min4s", 93784),
        ("0s", 0),
        (" 15 s ", 15),
    ],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("90", "has no unit"),
        (90, "has no unit"),
        (1.5, "has no unit"),
        ("90m", 'did you mean "min"'),
        ("90 minutes", 'did you mean "min"'),
        ("2hrs", 'did you mean "h"'),
        ("2weeks", "unknown unit"),
        ("30min1h", "twice or out of order"),
        ("1h1h", "twice or out of order"),
        ("", "no span"),
        ("min", "no span"),
        ("1h and 2s", "no span"),
        ("-5min", "no span"),
        ("1h-5min", "no span"),
        (True, "no span"),
        (None, "no span"),
        ("40000d", "hundred years"),
    ],
)
def test_spans_are_refused_with_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"allowed is .*90min") as error:
        parse_seconds(text)
    assert words in str(error.value)


def test_a_number_too_long_to_print_is_refused_all_the_same() -> None:
    with pytest.raises(ValueError, match="more than 50 digits"):
        parse_bytes(10**5000)
    with pytest.raises(ValueError, match="more than 50 digits"):
        parse_seconds(10**5000)  # type: ignore[arg-type]


@given(st.text() | st.integers() | st.floats() | st.none())
def test_nothing_but_value_error(value: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            assert parse(value) >= 0
        except ValueError as error:
            assert "allowed is" in str(error)


@given(st.integers(0, 10**15))
def test_shown_bytes_are_read_back_within_three_figures(size_bytes: int) -> None:
    assert abs(parse_bytes(show_bytes(size_bytes)) - size_bytes) <= 0.006 * size_bytes


@given(st.floats(0.01, 3e9))  # a millisecond is the least that is shown
def test_shown_spans_are_read_back_closely(seconds: float) -> None:
    assert abs(parse_seconds(show_seconds(seconds)) - seconds) <= 0.05 * seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59.7, "1min"), (3599.9, "1h"), (86399, "1d"), (3660, "1h1min"), (-60, "-1min"), (1e-9, "0s")],
)
def test_spans_at_the_edges(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(units).failed == 0
