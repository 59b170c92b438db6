"""The map from keys to lines agrees with tomli on every text that tomli takes."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltd.policy.lines import Path, key_lines, line_of

TEXT = '''# a comment = 1
top = 1
[a]
x = "[b] # no = header"
y = """
[c]
z = 1
""" # after
"quoted key" = 'it''s'
w = [
  1, # one
  [2, 3],
  { p = 4, "q.r" = { s = 5 } },
]
d.e.f = 1979-05-27 07:32:00
[[list]]
n = 1
[[list]]
n = 2
[list.sub]
m = 3
[ a . b ]
last = true
'''.replace("'it''s'", "'its'")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("a",), 3),
        (("a", "x"), 4),
        (("a", "y"), 5),
        (("a", "quoted key"), 9),
        (("a", "w"), 10),
        (("a", "w", 0), 11),
        (("a", "w", 1, 1), 12),
        (("a", "w", 2, "q.r", "s"), 13),
        (("a", "d", "e", "f"), 15),
        (("list", 0, "n"), 17),
        (("list", 1, "n"), 19),
        (("list", 1, "sub", "m"), 21),
        (("a", "b"), 22),
        (("a", "b", "last"), 23),
    ],
)
def test_each_key_has_its_line(path: Path, line: int) -> None:
    assert key_lines(TEXT)[path] == line


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    assert line_of(key_lines(TEXT), ("a", "x", "base")) == (("a", "x"), 4)
    assert line_of(key_lines(TEXT), ("nothing",)) == ((), 1)


def paths(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        return found.union(*(paths(item, (*path, key)) for key, item in value.items()))
    if isinstance(value, list):
        return found.union(*(paths(item, (*path, index)) for index, item in enumerate(value)))
    return found


def test_every_key_of_the_example_is_found() -> None:
    assert set(key_lines(TEXT)) >= paths(tomli.loads(TEXT))


_scalar = st.sampled_from(
    ["1", "-2.5", "true", '"a = [1] # x"', "'{}'", '"""m\n[x]\n"""', "'''\n'''", '"\\""']
)
_value = st.recursive(
    _scalar,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # c\n".join(items) + "\n]")
        | st.lists(inner.filter(lambda v: "\n" not in v), max_size=2).map(
            lambda items: "{" + ", ".join(f"k{n} = {item}" for n, item in enumerate(items)) + "}"
        )
    ),
    max_leaves=6,
)
_names = st.lists(st.sampled_from(["a", "b-c", "'d e'", '"f\\tg"', "7"]), min_size=1, max_size=3).map(
    " . ".join
)
_line = (
    st.builds("{} = {}".format, _names, _value)
    | st.builds("[{}]".format, _names)
    | st.builds("[[{}]]".format, _names)
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_line | st.just("# x = 1") | st.just(""), max_size=8).map("\n".join) | st.text())
def test_it_agrees_with_tomli_and_never_raises(text: str) -> None:
    lines = key_lines(text)
    try:
        table = tomli.loads(text)
    except ValueError:
        return
    assert set(lines) >= paths(table)
