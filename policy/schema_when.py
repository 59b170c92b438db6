"""The ``when`` of a rule: what must hold of a dataset.  All its keys must; a list means one of it."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tiltd.daemon.core.model import Condition

from .amounts import Section
from .schema_parts import (
    CountRange,
    Hours,
    Range,
    SizeRange,
    SpacingRange,
    Texts,
    Title,
    Weekdays,
    Zone,
    key,
)

_PATTERNS = "; * any characters, ? one"


class When(Section):
    """What must hold of a dataset for the rule to match: every key, and of a list one element."""

    feed: Texts = key("feed", f"name of its feed{_PATTERNS}", '["krios1", "krios2"]')
    microscope: Texts = key("microscope", f"its label microscope{_PATTERNS}", '"krios*"')
    project: Texts = key("project", f"its project{_PATTERNS}", '"covid-*"')
    session: Texts = key("session", f"its session{_PATTERNS}", '"2026-07-*"')
    name: Texts = key("name", f"name of the tilt series{_PATTERNS}", '"TS_*"')
    pipeline: Texts = key("pipeline", f"the pipeline of its feed{_PATTERNS}", '"wbp"')
    labels: Annotated[dict[Title, Texts], Field(min_length=1)] = key(
        "labels", f"other labels of its{_PATTERNS}", '{ detector = "K3" }'
    )
    size: SizeRange = key("size", "bytes of its input files, from min to max", '{ min = "4GB" }', "bytes")
    tilts: CountRange = key("tilts", "number of its tilts, or a range of it", "{ min = 61 }", "tilts")
    image_size: CountRange = key(
        "image_size", "the longer side of its images, or a range of it", "{ min = 8000 }", "pixels"
    )
    pixel_size: SpacingRange = key(
        "pixel_size", "size of a pixel, or a range of it", '{ max = "1.4A" }', "A or nm"
    )
    attempt: CountRange = key(
        "attempt", "number of the attempt to be placed, from 1, or a range", "{ min = 2 }", "attempts"
    )
    waiting: CountRange = key(
        "waiting", "how many series are ready and have no place, or a range", "{ min = 100 }", "series"
    )
    hours: Hours = key("hours", "the hour is in this span, there; its end is not", '"18-8"', "hours")
    weekdays: Weekdays = key("weekdays", "it is one of these days, there", '["sat", "sun"]')
    zone: Zone = key("zone", "where: the IANA time zone of hours and weekdays", '"Europe/Berlin"')

    @model_validator(mode="after")
    def _where_and_when(self) -> Self:
        timed = self.hours is not None or self.weekdays is not None
        if timed and self.zone is None:
            raise ValueError('hours and weekdays need a "zone" beside them, such as zone = "Europe/Berlin"')
        if self.zone is not None and not timed:
            raise ValueError("zone alone says nothing: give hours or weekdays beside it, or remove it")
        return self

    def conditions(self) -> tuple[Condition, ...]:
        """One record a key, in the order of this class; ``labels`` gives one a label."""
        found: list[Condition] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or name == "zone":
                continue
            if isinstance(value, dict):
                found += [Condition(key=f"labels.{k}", patterns=tuple(v)) for k, v in sorted(value.items())]
            elif isinstance(value, Range):
                found.append(Condition(key=name, least=value.min, most=value.max))
            elif isinstance(value, tuple):
                found.append(Condition(key=name, numbers=value, zone=self.zone))
            else:
                found.append(Condition(key=name, patterns=tuple(value)))
        return tuple(found)
