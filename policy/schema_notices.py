"""Who is told of what: ``[notices]``, and the ``[[notice]]`` rules."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from tiltd.daemon.core.model import OF_A_SERIES, Condition, NoticeEvent, NoticeRule
from tiltd.daemon.core.units import shown_value

from .amounts import Section, Span
from .known import destination_fault, zone_fault
from .notices import default_events
from .schema_parts import RuleName, Text, Texts, Title, as_list, key

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,8}")
_WEBHOOK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PATTERNS = "; * any characters, ? one"


def _destination(text: str, info: ValidationInfo) -> str:
    if text == "log":
        raise ValueError('"log" needs no rule: every notice stands in the log')
    if "@" in text and not _ADDRESS.fullmatch(text):
        raise ValueError(f'{shown_value(text)} is no e-mail address: allowed is one such as "em@example.org"')
    if "@" not in text and not _WEBHOOK.fullmatch(text):
        raise ValueError(f"{shown_value(text)} is neither an e-mail address nor the name of a webhook")
    if fault := destination_fault(text, info.context):
        raise ValueError(fault)
    return text


def _hours(values: list[int]) -> list[int]:
    if any(not 0 <= value <= 23 for value in values):
        raise ValueError(
            "has an hour that there is not: allowed are whole hours from 0 to 23, such as [8, 18]"
        )
    return sorted(set(values))


def _zone(name: str, info: ValidationInfo) -> str:
    if name and (fault := zone_fault(name, info.context)):
        raise ValueError(fault)
    return name


Destinations = Annotated[
    list[Annotated[Text, AfterValidator(_destination)]],
    BeforeValidator(as_list),
    Field(min_length=1, max_length=50),
]
Events = Annotated[list[NoticeEvent], BeforeValidator(as_list), Field(min_length=1)]


class Notices(Section):
    """When what people are told goes out; whom, is said by [[notice]] rules."""

    gather_seconds: Span = key(
        "gather",
        'one cause is told once; what follows within this time comes in one notice; "0s": each by itself',
        '"15min"',
        "span",
    )
    session_quiet_seconds: Span = key(
        "session_quiet", "a session is over when no series was complete for so long", '"2h"', "span"
    )
    digest_wait_seconds: Span = key(
        "digest_wait", "its digest then waits at most so long for series under way", '"12h"', "span"
    )
    digest_hours: Annotated[list[int], AfterValidator(_hours)] = key(
        "digest_hours", "digests go out at these hours too, in the zone", "[8, 18]", "hours"
    )
    zone: Annotated[Text, AfterValidator(_zone)] = key(
        "zone", "the IANA time zone of digest_hours", '"Europe/Berlin"'
    )
    quiet_seconds: Span = key(
        "quiet", "the event quiet: an arriving series has not grown for so long", '"20min"', "span"
    )
    give_up_seconds: Span = key(
        "give_up", "a notice that cannot be delivered is tried for so long", '"2d"', "span"
    )


class NoticeWhen(Section):
    """What must hold of a series for the notice rule to match: every key, and of a list one element."""

    feed: Texts = key("feed", f"name of its feed{_PATTERNS}; also what is about the feed", '"krios1"')
    microscope: Texts = key("microscope", f"its label microscope{_PATTERNS}", '"krios*"')
    project: Texts = key("project", f"its project{_PATTERNS}", '"apoferritin"')
    session: Texts = key("session", f"its session{_PATTERNS}", '"2026-11-*"')
    name: Texts = key("name", f"name of the tilt series{_PATTERNS}", '"TS_*"')
    labels: Annotated[dict[Title, Texts], Field(min_length=1)] = key(
        "labels", f"other labels of its{_PATTERNS}", '{ detector = "K3" }'
    )

    def conditions(self) -> tuple[Condition, ...]:
        """One record a key, in the order of this class; ``labels`` gives one a label."""
        found: list[Condition] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, dict):
                found += [Condition(key=f"labels.{k}", patterns=tuple(v)) for k, v in sorted(value.items())]
            elif value is not None:
                found.append(Condition(key=name, patterns=tuple(value)))
        return tuple(found)


class NoticeTable(Section):
    """Whom to tell of what.  A later file's notice rule of the same name replaces it, in its place."""

    name: RuleName = Field(
        alias="name", description="its name, which stands in what is sent", examples=['"apoferritin"']
    )
    enabled: bool = key("enabled", "false takes an earlier file's notice rule away", "false", default=True)
    events: Events = key(
        "events",
        "which events; left out: all that need a person, and for a digest all",
        '["failed", "held"]',
    )
    when: NoticeWhen = key(
        "when", "see [notice.when]; left out it matches everything", '{ project = "lab-a" }'
    )
    to: Destinations = key(
        "to", "e-mail addresses, and names of webhooks of tiltd.toml", '["em@example.org", "team-chat"]'
    )
    how: Literal["at once", "digest"] = key(
        "how", "at once, or in one digest of each session", '"digest"', default="at once"
    )

    @model_validator(mode="after")
    def _tells_somebody(self) -> Self:
        if self.enabled and not self.to:
            raise ValueError('tells nobody: give it a to, such as to = ["em@example.org"]')
        whose = [each.key for each in self.when.conditions()] if self.when is not None else []
        about_series = [name for name in whose if name != "feed"]
        unheard = sorted(set(self.events or ()) - OF_A_SERIES)
        if about_series and unheard:
            what = about_series[0].removeprefix("labels.")
            raise ValueError(
                f'"{unheard[0]}" is about the facility and not about one series, so a rule for one {what} '
                "never hears of it: give it a rule of its own"
            )
        return self

    def record(self) -> NoticeRule:
        return NoticeRule(
            name=self.name,
            to=tuple(dict.fromkeys(self.to or ())),
            events=tuple(self.events or default_events(self.how)),
            conditions=self.when.conditions() if self.when is not None else (),
            how=self.how,
        )
