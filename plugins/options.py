"""A pipeline's options: what is known, of which type, within which limits.  Pure.

A pipeline lists its options once as a tuple of :class:`Option`; :func:`read_options` lays the layers over
each other (settings of the plugin below, options of the dataset above) and says what is wrong in a sentence.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tiltd.daemon.core.model import Record
from tiltd.plugins.api import Permanent

Value = str | int | float | bool


class Option(Record):
    """One option.  The default's type is the option's type, unless it is None: then a number, or unset.

    ``low`` and ``high`` bound numbers (both allowed), ``choices`` words.  ``meaning`` gives the unit.
    """

    name: str
    default: Value | None
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()


def read_options(
    pipeline: str, known: Sequence[Option], *layers: Mapping[str, Any]
) -> dict[str, Value | None]:
    """Every known option with its value; later layers win.

    Raises Permanent that names the option and what it may be, with a suggestion for a misspelt name.
    """
    table = {option.name: option for option in known}
    values: dict[str, Value | None] = {option.name: option.default for option in known}
    for layer in layers:
        for name, value in layer.items():
            if name not in table:
                raise Permanent(_unknown(pipeline, str(name), list(table)))
            values[name] = _checked(pipeline, table[name], value)
    return values


def _unknown(pipeline: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
    return f"pipeline {pipeline}: unknown option {name!a}; {hint}"


def _checked(pipeline: str, option: Option, value: Any) -> Value:
    wanted: Any = _kind(option)
    if wanted is float and type(value) is int:
        value = float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise _wrong(pipeline, option, f"must be {_KINDS[wanted]} ({option.meaning}), not {value!a}")
    if wanted in (int, float):
        if not (math.isfinite(value) and option.low <= value <= option.high):
            raise _wrong(pipeline, option, f"is {value}; it must be {_limits(option)} ({option.meaning})")
    elif option.choices and value not in option.choices:
        raise _wrong(pipeline, option, f"is {value!a}; it may be {' or '.join(option.choices)}")
    checked: Value = value
    return checked


def _wrong(pipeline: str, option: Option, what: str) -> Permanent:
    return Permanent(f"pipeline {pipeline}: option {option.name} {what}")


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(option: Option) -> type:
    return float if option.default is None else type(option.default)


def _limits(option: Option) -> str:
    if math.isinf(option.low):
        return f"at most {option.high:g}"
    if math.isinf(option.high):
        return f"at least {option.low:g}"
    return f"between {option.low:g} and {option.high:g}"
