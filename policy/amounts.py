"""Types of values in a policy file: amounts with units, and values that grow with the size of a series."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tiltd.daemon.core.model import SizeStep, Steps
from tiltd.daemon.core.units import BYTES_ALLOWED, SECONDS_ALLOWED, parse_bytes, parse_seconds, shown_value


def _span(value: Any) -> float:
    if _is_bare(value):
        hint = f'; did you mean "{value}min" or "{value}s"?' if len(shown_value(value)) < 12 else ""
        raise ValueError(f"{shown_value(value)} has no unit: allowed is {SECONDS_ALLOWED}{hint}")
    if not isinstance(value, str):
        raise ValueError(f"must be a span of time in quotes: allowed is {SECONDS_ALLOWED}")
    return parse_seconds(value)


def _bytes(value: Any) -> int:
    if _is_bare(value):
        hint = f'; did you mean "{value}GB"?' if len(shown_value(value)) < 12 else ""
        raise ValueError(f"{shown_value(value)} has no unit: allowed is {BYTES_ALLOWED}{hint}")
    if not isinstance(value, str):
        raise ValueError(f"must be an amount of bytes in quotes: allowed is {BYTES_ALLOWED}")
    return parse_bytes(value)


def _is_bare(value: Any) -> bool:
    """A number without unit, in quotes or not; the commonest mistake, so it gets its own sentence."""
    if isinstance(value, str):
        return re.fullmatch(r"\s*[0-9.]+\s*", value) is not None
    return isinstance(value, (int, float)) and not isinstance(value, bool)


Span = Annotated[float, BeforeValidator(_span)]
"""Seconds, written with a unit."""
Bytes = Annotated[int, BeforeValidator(_bytes)]
"""Bytes, written with a unit."""
Cores = Annotated[float, Field(ge=1, le=4096)]


class Section(BaseModel):
    """A table of a policy file: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Growing(Section):
    """A value that grows with the size of a series.  ``steps``: beyond ``above`` the base is ``value``."""

    base: Any
    per_gb: Any = 0
    min: Any = None
    max: Any = None
    steps: Any = []

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is larger than max: min must be the smaller")
        above = [step.above for step in self.steps]
        if above != sorted(set(above)):
            raise ValueError('the steps do not ascend: each "above" must be larger than the one before')
        return self

    def record(self) -> Steps:
        return Steps(
            base=float(self.base),
            per_gb=float(self.per_gb),
            min=None if self.min is None else float(self.min),
            max=None if self.max is None else float(self.max),
            table=tuple(SizeStep(above_bytes=step.above, value=float(step.value)) for step in self.steps),
        )


class _CoreStep(Section):
    above: Bytes
    value: Cores


class _ByteStep(Section):
    above: Bytes
    value: Bytes


class _SpanStep(Section):
    above: Bytes
    value: Span


class _GrowingCores(Growing):
    base: Cores
    per_gb: Annotated[float, Field(ge=0, le=4096)] = 0.0
    min: Cores | None = None
    max: Cores | None = None
    steps: list[_CoreStep] = []


class _GrowingBytes(Growing):
    base: Bytes
    per_gb: Bytes = 0
    min: Bytes | None = None
    max: Bytes | None = None
    steps: list[_ByteStep] = []


class _GrowingSpan(Growing):
    base: Span
    per_gb: Span = 0.0
    min: Span | None = None
    max: Span | None = None
    steps: list[_SpanStep] = []


def _plain_is_base(value: Any) -> Any:
    """``cores = 4`` is short for ``cores = { base = 4 }``."""
    return value if isinstance(value, dict) else {"base": value}


CoreSteps = Annotated[_GrowingCores, BeforeValidator(_plain_is_base)]
ByteSteps = Annotated[_GrowingBytes, BeforeValidator(_plain_is_base)]
SpanSteps = Annotated[_GrowingSpan, BeforeValidator(_plain_is_base)]


def growing(value: Any) -> Any:
    """The record of a value that grows with size; any other value as it is."""
    return value.record() if isinstance(value, Growing) else value
