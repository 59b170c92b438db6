"""Types of single values that the tables of a policy file share: texts, patterns, ranges, hours."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from tiltd.daemon.core.model import FailureClass
from tiltd.daemon.core.model.options import dotted
from tiltd.daemon.core.units import shown_value

from .amounts import Bytes, Section, Span
from .directives import PLACEHOLDERS, fields_of
from .known import pipeline_fault, result_fault, zone_fault

PATTERN_MAX = 200
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def key(alias: str, meaning: str, example: str, unit: str = "", default: Any = None) -> Any:
    """A key of the file that may be absent."""
    return Field(
        default=default,
        alias=alias,
        description=meaning,
        examples=[example],
        json_schema_extra={"unit": unit},
    )


def _each_once(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'names "{twice[0]}" twice: name each once')
    return names


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown_value(text)} has control characters: allowed is one line of text")
    return text


def as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _some(names: list[str]) -> list[str]:
    if not names or not all(names):
        raise ValueError('is empty, so nothing could match: allowed is a text or a list, such as "K3*"')
    return names


Classes = Annotated[list[FailureClass], AfterValidator(_each_once)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]*$", max_length=64)]
RuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]*$", min_length=1, max_length=64)]
Names = Annotated[list[Name], AfterValidator(_each_once)]
Text = Annotated[str, Field(max_length=PATTERN_MAX), AfterValidator(_printable)]
Title = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
Factor = Annotated[float, Field(ge=1, le=64)]
CoresMin = Annotated[int, Field(ge=0, le=4096)]
Margin = Annotated[float, Field(ge=1, le=10)]
Part = Annotated[float, Field(ge=0.1, le=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Share = Annotated[float, Field(ge=0, le=1000)]
Limit = Annotated[int, Field(ge=0, le=1_000_000)]
Nodes = Annotated[int, Field(ge=1, le=64)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Texts = Annotated[
    list[Text],
    BeforeValidator(as_list),
    AfterValidator(_some),
    Field(max_length=100),
    AfterValidator(_each_once),
]
"""One pattern or a list of them; ``*`` stands for any characters, ``?`` for one."""
Patterns = Annotated[list[Text], BeforeValidator(as_list), Field(max_length=100), AfterValidator(_each_once)]
"""The same, and it may be empty."""


# -- ranges ------------------------------------------------------------------------------------------------


class Range(Section):
    """At least ``min``, at most ``max``; one of them may be left out."""

    min: Any = None
    max: Any = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("is empty: give it min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is larger than max: min must be the smaller")
        return self


class _Counts(Range):
    min: Limit | None = None
    max: Limit | None = None


class _Sizes(Range):
    min: Bytes | None = None
    max: Bytes | None = None


class _Spans(Range):
    min: Span | None = None
    max: Span | None = None


def parse_spacing(value: Any) -> float:
    """Angstrom; a number without unit could be nm, as in half of the field's programs.

    Raises ValueError with a sentence.
    """
    allowed = 'allowed is a number with A or nm, such as "1.35A" or "0.135nm"'
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"{shown_value(value)} has no unit: {allowed}")
    match = (
        re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,9})?) ?([A-Za-zÅ]{0,12})", value)
        if isinstance(value, str)
        else None
    )
    if match is None:
        raise ValueError(f"{shown_value(value)} is no pixel size: {allowed}")
    unit = {"A": 1.0, "Å": 1.0, "nm": 10.0}.get(match.group(2))
    if unit is None:
        trouble = f'the unknown unit "{match.group(2)}"' if match.group(2) else "no unit"
        raise ValueError(f"{shown_value(value)} has {trouble}: {allowed}")
    return float(match.group(1)) * unit


Spacing = Annotated[float, BeforeValidator(parse_spacing)]
"""Angstrom a pixel, written with a unit."""


class _Spacings(Range):
    min: Spacing | None = None
    max: Spacing | None = None


def _exactly(value: Any) -> Any:
    """``41`` is short for ``{ min = 41, max = 41 }``."""
    return value if isinstance(value, dict) else {"min": value, "max": value}


def _only_a_range(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("is no range: allowed is a table with min, max or both, such as { min = ... }")
    return value


CountRange = Annotated[_Counts, BeforeValidator(_exactly)]
SizeRange = Annotated[_Sizes, BeforeValidator(_only_a_range)]
SizeOrRange = Annotated[_Sizes, BeforeValidator(_exactly)]
SpanOrRange = Annotated[_Spans, BeforeValidator(_exactly)]
SpacingRange = Annotated[_Spacings, BeforeValidator(_only_a_range)]


# -- hours and weekdays ------------------------------------------------------------------------------------


def _hours(value: Any) -> tuple[int, ...]:
    allowed = 'allowed is "8-18" (8:00 to 18:00), "18-8" (over midnight), or a list of such'
    hours: set[int] = set()
    for part in _parts(value, allowed):
        match = re.fullmatch(r" ?([0-9]{1,2}) ?- ?([0-9]{1,2}) ?", part)
        start, end = (int(match.group(1)), int(match.group(2))) if match else (99, 99)
        if start > 23 or end > 24 or start == end:
            raise ValueError(f"{shown_value(part)} is no span of hours: {allowed}")
        hours |= set(range(start, end)) if start < end else {*range(start, 24), *range(end)}
    return tuple(sorted(hours))


def _weekdays(value: Any) -> tuple[int, ...]:
    allowed = 'allowed are mon tue wed thu fri sat sun, such as "sat", "mon-fri" or a list of such'
    days: set[int] = set()
    for part in _parts(value, allowed):
        ends = [end.strip() for end in part.split("-")]
        unknown = [end for end in ends if end not in WEEKDAYS]
        if unknown or len(ends) > 2:
            short = unknown[0][:3].lower() if unknown else ""
            hint = f'; did you mean "{short}"?' if short in WEEKDAYS else ""
            raise ValueError(f"{shown_value(part)} is no weekday: {allowed}{hint}")
        first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
        days |= {day % 7 for day in range(first, (last if last >= first else last + 7) + 1)}
    return tuple(sorted(days))


def _parts(value: Any, allowed: str) -> list[str]:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"must be a text in quotes or a list of them: {allowed}")
    return parts


def _zone(name: str, info: ValidationInfo) -> str:
    if fault := zone_fault(name, info.context):
        raise ValueError(fault)
    return name


Zone = Annotated[Text, AfterValidator(_zone)]
Hours = Annotated[tuple[int, ...], BeforeValidator(_hours)]
Weekdays = Annotated[tuple[int, ...], BeforeValidator(_weekdays)]


# -- templates and options -----------------------------------------------------------------------------------


def _pipeline(name: str, info: ValidationInfo) -> str:
    if fault := pipeline_fault(name, info.context):
        raise ValueError(fault)
    return name


def _destination(text: str, info: ValidationInfo) -> str:
    fields = fields_of(text)
    if fields is None:
        raise ValueError("has braces that are no placeholder: allowed are names such as {project}")
    if not text.startswith("/") or ".." in text.split("/"):
        raise ValueError("must be an absolute path without '..', such as \"/data/urgent/{project}/{series}\"")
    if "series" not in fields:
        raise ValueError("must contain {series}, so that each series has a folder of its own")
    if fault := result_fault(text, info.context):
        raise ValueError(fault)
    return text


def _directive(text: str) -> str:
    fields = fields_of(text)
    unknown = sorted((fields or set()) - set(PLACEHOLDERS))
    if fields is None or unknown:
        what = f"unknown placeholder {{{unknown[0]}}}" if unknown else "has braces that are no placeholder"
        raise ValueError(f"{what}: allowed are {', '.join(PLACEHOLDERS)}")
    if not text.isascii() or not text.strip():
        raise ValueError('must be one line of plain ASCII text, such as "-W group_list={project}"')
    return text


def _scalar(value: Any) -> str | int | float | bool:
    if isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    raise ValueError("is no option: allowed is a text in quotes, a number, true or false")


Pipeline = Annotated[Name, AfterValidator(_pipeline)]
Destination = Annotated[Text, AfterValidator(_destination)]
Directives = Annotated[list[Annotated[Text, AfterValidator(_directive)]], Field(max_length=20)]
Option = Annotated[Any, BeforeValidator(_scalar)]
OptionTable = Annotated[dict[Title, Option], Field(min_length=1), BeforeValidator(dotted)]
"""Tables in it become names with dots: ``comparam.tilt.tilt.THICKNESS = 800`` needs no quotes."""
