"""Names in a policy that must exist outside of it: time zones, pipelines; and folders that are not ours."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tiltd.daemon.core.model import Record
from tiltd.daemon.core.units import shown_value


class Known(Record):
    """What the shell knows of the world: names of time zones and of pipelines, the folders of the feeds, in
    which no result may come to lie, the feeds with their pipelines, and what is wrong with an option of a
    pipeline (pipeline, option, value; "" for nothing); the names of webhooks, and whether mail can be sent.
    ``None``: not known, so not checked."""

    zones: Collection[str] | None = None
    pipelines: Collection[str] | None = None
    feed_folders: Collection[str] | None = None
    feeds: Mapping[str, str] | None = None
    option_fault: Callable[[str, str, Any], str] | None = None
    webhooks: Collection[str] | None = None
    sends_mail: bool | None = None


def zone_fault(name: str, known: Known | None) -> str:
    """ "" if there is such a zone, else the sentence."""
    zones = known.zones if known is not None else None
    if zones is None or name in zones:
        return ""
    hint = did_you_mean(name, zones) or ', such as "Europe/Berlin" or "UTC"'
    return f"{shown_value(name)} is no time zone: allowed are IANA names{hint}"


def pipeline_fault(name: str, known: Known | None) -> str:
    """ "" if it is installed, else the sentence."""
    pipelines = known.pipelines if known is not None else None
    if not name or pipelines is None or name in pipelines:
        return ""
    listed = ", ".join(sorted(pipelines)) or "none is installed"
    return f"{shown_value(name)} is no pipeline: allowed are {listed}{did_you_mean(name, pipelines)}"


def result_fault(template: str, known: Known | None) -> str:
    """ "" if no result of this destination can come to lie in a feed, as far as its fixed part tells."""
    fixed = template.split("{", 1)[0]
    for folder in (known.feed_folders if known is not None else None) or ():
        if (fixed + "/").startswith(folder.rstrip("/") + "/"):
            return f"lies inside the feed {shown_value(folder)}: tiltd never writes there"
    return ""


def destination_fault(name: str, known: Known | None) -> str:
    """ "" if the settings say how an address or a webhook is reached, else the sentence."""
    if known is None:
        return ""
    if "@" in name:
        missing = "tiltd.toml has no [notices.email], so no mail can be sent: add it, or name a webhook"
        return missing if known.sends_mail is False else ""
    if known.webhooks is None or name in known.webhooks:
        return ""
    listed = ", ".join(sorted(known.webhooks)) or "none"
    hint = did_you_mean(name, known.webhooks)
    return f"{shown_value(name)} is no webhook of tiltd.toml ([[notices.webhook]]): there are {listed}{hint}"


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Compared without regard to case; of time zones the city alone will do."""
    by_case = {each.lower(): each for each in names} | {
        each.rpartition("/")[2].lower(): each for each in names if "/" in each
    }
    near = difflib.get_close_matches(name.lower()[:80], by_case, n=1)
    return f'; did you mean "{by_case[near[0]]}"?' if near else ""
