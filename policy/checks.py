"""What the schema cannot see: names that must exist, names given twice, values that do not go together."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import CompletenessPolicy, Policy, Record, ResourcePolicy, RetryPolicy, Rule
from tiltd.daemon.core.units import shown_value

from .lines import Path
from .schema import PolicyFile
from .schema_set import RuleTable

Fault = tuple[Path, str]
"""The way to the value in its file, and the sentence."""
Contradiction = tuple[str, str, str]
"""Two dotted keys of ``Policy.origins`` and the sentence; it is told at the later one."""


class Known(Record):
    """What the shell knows of the world: names of time zones and of pipelines, and the folders of the feeds,
    in which no result may come to lie.  ``None``: not known, so not checked."""

    zones: Collection[str] | None = None
    pipelines: Collection[str] | None = None
    feed_folders: Collection[str] | None = None


def references(read: PolicyFile, known: Known, rules_before: Collection[str]) -> Iterator[Fault]:
    """Faults of one file's rules and tests.  ``rules_before`` are the names of earlier files' rules."""
    yield from _twice("rule", [rule.name for rule in read.rule or ()])
    yield from _twice("test", [test.name for test in read.test or ()])
    for index, rule in enumerate(read.rule or ()):
        yield from _of_rule(("rule", index), rule, known)
        if not rule.enabled and rule.name not in rules_before:
            hint = _did_you_mean(rule.name, rules_before)
            yield ("rule", index, "name"), f"no earlier file has a rule of this name to take away{hint}"


def _twice(kind: str, names: list[str]) -> Iterator[Fault]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (kind, index, "name"), f"{shown_value(name)} is the name of an earlier {kind} in this file"


def _of_rule(path: Path, rule: RuleTable, known: Known) -> Iterator[Fault]:
    zone = rule.when.zone if rule.when is not None else None
    if zone is not None and known.zones is not None and zone not in known.zones:
        hint = _did_you_mean(zone, known.zones) or ', such as "Europe/Berlin" or "UTC"'
        yield (*path, "when", "zone"), f"{shown_value(zone)} is no time zone: allowed are IANA names{hint}"
    if rule.set is None:
        return
    pipeline = rule.set.pipeline
    if pipeline and known.pipelines is not None and pipeline not in known.pipelines:
        listed = ", ".join(sorted(known.pipelines)) or "none is installed"
        hint = _did_you_mean(pipeline, known.pipelines)
        yield (
            (*path, "set", "pipeline"),
            f"{shown_value(pipeline)} is no pipeline: allowed are {listed}{hint}",
        )
    for folder in known.feed_folders or ():
        if rule.set.destination is not None and _inside(rule.set.destination, folder):
            yield (
                (*path, "set", "destination"),
                f"lies inside the feed {shown_value(folder)}: tiltd never writes there",
            )


def _inside(template: str, folder: str) -> bool:
    fixed = template.split("{", 1)[0]
    return (fixed + "/").startswith(folder.rstrip("/") + "/")


def _did_you_mean(name: str, names: Collection[str]) -> str:
    """Compared without regard to case; among time zones the city alone counts too."""
    by_case = {each.lower(): each for each in names} | {
        each.rpartition("/")[2].lower(): each for each in names if "/" in each
    }
    near = difflib.get_close_matches(name.lower()[:80], by_case, n=1)
    return f'; did you mean "{by_case[near[0]]}"?' if near else ""


# -- values that do not go together --------------------------------------------------------------------------


def contradictions(policy: Policy) -> list[Contradiction]:
    """Values that are fine alone and not together, in the sections and in each rule over the sections."""
    found = _sections(policy.resources, policy.retry, policy.completeness)
    if common := sorted(set(policy.placement.only_nodes) & set(policy.placement.not_nodes)):
        sentence = f"{shown_value(common[0])} stands in only_nodes and in not_nodes: name it in one of them"
        found.append(("placement.only_nodes", "placement.not_nodes", sentence))
    stopped_by = ""
    for rule in policy.rules:
        if stopped_by:
            sentence = f"is never tried: the rule {stopped_by} before it stops for every dataset"
            found.append((f"rule.{rule.name}", f"rule.{rule.name}", sentence))
        found += _rule(policy, rule)
        if rule.stop and not rule.conditions:
            stopped_by = rule.name
    return found


def _rule(policy: Policy, rule: Rule) -> list[Contradiction]:
    """Each key of a contradiction is that of the rule where the rule sets it."""
    sets = rule.sets
    limits = {
        field: sets[key]
        for key, field in (("walltime_min", "walltime_seconds_min"), ("walltime_max", "walltime_seconds_max"))
        if key in sets
    }
    found = _sections(
        replace(policy.resources, **limits),
        replace(policy.retry, **sets.get("retry", {})),
        replace(policy.completeness, **sets.get("completeness", {})),
    )
    here = [(_in_rule(policy, rule, key), _in_rule(policy, rule, other), text) for key, other, text in found]
    return [each for each in here if any(name.startswith("rule.") for name in each[:2])]


def _in_rule(policy: Policy, rule: Rule, key: str) -> str:
    section, _, name = key.partition(".")
    inner = name if section == "resources" else f"{section}.{name}"
    told = f"rule.{rule.name}.set.{inner}"
    return told if told in policy.origins else key


def _sections(
    resources: ResourcePolicy, retry: RetryPolicy, completeness: CompletenessPolicy
) -> list[Contradiction]:
    wrong: list[Contradiction] = []
    if resources.walltime_seconds_max < resources.walltime_seconds_min:
        sentence = "walltime_min is more than walltime_max: allowed is at most walltime_max"
        wrong.append(("resources.walltime_min", "resources.walltime_max", sentence))
    if retry.delay_seconds_max < retry.delay_seconds:
        sentence = "delay is more than delay_max: allowed is at most delay_max"
        wrong.append(("retry.delay", "retry.delay_max", sentence))
    if completeness.stale_seconds <= completeness.quiet_min_seconds:
        sentence = "stale is not more than quiet_min, so no series could ever be complete: allowed is more"
        wrong.append(("completeness.stale", "completeness.quiet_min", sentence))
    for name in ("hold", "other_node", "more_memory", "more_walltime"):
        for failure_class in sorted(set(retry.give_up) & set(getattr(retry, name))):
            sentence = f'"{failure_class}" stands in give_up and in {name}: name it in one of them'
            wrong.append((f"retry.{name}", "retry.give_up", sentence))
    return wrong


def later(origins: Mapping[str, Any], keys: tuple[str, str]) -> str:
    """That of the two keys which was set later (files in order, then lines)."""
    told = [name for name in keys if name in origins]
    return max(told, key=origins.__getitem__, default=keys[0])
