"""What the schema cannot see: names given twice, and values that do not go together."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import CompletenessPolicy, Policy, ResourcePolicy, RetryPolicy, Rule
from tiltd.daemon.core.units import shown_value

from .known import did_you_mean
from .lines import Path

Fault = tuple[Path, str]
"""The way to the value in its file, and the sentence."""
Contradiction = tuple[str, str, str]
"""Two dotted keys of ``Policy.origins`` and the sentence; it is told at the later one."""


def names_in(table: Mapping[str, Any], kind: str) -> list[str]:
    """The names of a file's rules or tests as they are written; "" for one that has none."""
    listed = table.get(kind)
    tables = listed if isinstance(listed, list) else []
    names = [each.get("name") if isinstance(each, dict) else "" for each in tables]
    return [name if isinstance(name, str) else "" for name in names]


def names_faults(
    table: Mapping[str, Any], rules_before: Collection[str], notices_before: Collection[str] = ()
) -> Iterator[Fault]:
    """Names that stand twice in one file, and rules to be taken away that there are not."""
    for kind in ("rule", "notice", "test"):
        names = names_in(table, kind)
        for index, name in enumerate(names):
            if name and name in names[:index]:
                sentence = (
                    f"{shown_value(name)} is the name of an earlier {_word(kind)} in this file: "
                    "each needs its own"
                )
                yield (kind, index, "name"), sentence
    for kind, before in (("rule", rules_before), ("notice", notices_before)):
        for index, name in enumerate(names_in(table, kind)):
            if name and table[kind][index].get("enabled") is False and name not in before:
                hint = did_you_mean(name, before)
                sentence = f"no earlier file has a {_word(kind)} of this name to take away{hint}"
                yield (kind, index, "name"), sentence


def _word(kind: str) -> str:
    return "notice rule" if kind == "notice" else kind


def sound(table: Mapping[str, Any], faulty: Collection[Path]) -> dict[str, Any]:
    """The file without what is faulty: keys of sections, whole rules; and without its tests, which would
    ask more than is left.  A faulty rule becomes one that is taken away, so that the others keep their place.
    """
    left: dict[str, Any] = {
        name: dict(value) if isinstance(value, dict) else list(value) if isinstance(value, list) else value
        for name, value in table.items()
    }
    names = {kind: names_in(table, kind) for kind in ("rule", "notice")}
    for path in faulty:
        section, inner = path[0], left.get(str(path[0]))
        if section in names and len(path) > 1 and isinstance(path[1], int):
            kind = str(section)
            left[kind][path[1]] = {"name": _safe(names[kind][path[1]]), "enabled": False}
        elif len(path) > 1 and isinstance(inner, dict):
            inner.pop(str(path[1]), None)
        else:
            left.pop(str(section), None)
    left.pop("test", None)
    return left


def _safe(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_.:@-]{1,64}", name) else "-"


# -- values that do not go together --------------------------------------------------------------------------


def contradictions(policy: Policy) -> list[Contradiction]:
    """Values that are fine alone and not together, in the sections and in each rule over the sections."""
    found = _sections(policy.resources, policy.retry, policy.completeness) + _notices(policy)
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
    for name in ("hold", "other_node", "more_memory", "more_walltime", "more_scratch"):
        for failure_class in sorted(set(retry.give_up) & set(getattr(retry, name))):
            sentence = f'"{failure_class}" stands in give_up and in {name}: name it in one of them'
            wrong.append((f"retry.{name}", "retry.give_up", sentence))
    return wrong


def _notices(policy: Policy) -> list[Contradiction]:
    if policy.notices.digest_hours and not policy.notices.zone:
        sentence = 'needs a "zone" beside it, such as zone = "Europe/Berlin"'
        return [("notices.digest_hours", "notices.digest_hours", sentence)]
    return []


def later(origins: Mapping[str, Any], keys: tuple[str, str]) -> str:
    """That of the two keys which was set later (files in order, then lines)."""
    told = [name for name in keys if name in origins]
    return max(told, key=origins.__getitem__, default=keys[0])
