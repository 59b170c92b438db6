"""Policy files -> Policy, or every fault in them.  Pure: the shell reads the files and hands over texts.

    texts --tomli--> tables --schema.py--> values by key --later wins--> one set of values --> Policy

Files are laid over each other key by key (a key's whole value, also where it is a table that grows with
size; ``[placement.weights]`` weight by weight).  The shell gives the shipped :data:`DEFAULT_NAME` first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import tomli
from msgspec.structs import replace
from pydantic import ValidationError

from tiltd.daemon.core.model import (
    BreakerPolicy,
    CompletenessPolicy,
    LimitPolicy,
    PlacementPolicy,
    Policy,
    Record,
    ResourcePolicy,
    RetryPolicy,
)

from .amounts import Section, growing
from .faults import PolicyError, key_text, printable, sentence, syntax_error
from .lines import key_lines, line_of
from .schema import KNOWN_KEYS, PolicyFile

__all__ = ["DEFAULT_NAME", "PolicyError", "load"]

DEFAULT_NAME = "default.toml"
"""The shipped policy: package data of ``tiltd.policy``, read by the shell."""

_RECORDS: dict[str, type[Record]] = {
    "completeness": CompletenessPolicy,
    "resources": ResourcePolicy,
    "limits": LimitPolicy,
    "retry": RetryPolicy,
    "placement": PlacementPolicy,
    "breaker": BreakerPolicy,
}
"""Sections that are a record of their own; the keys of ``[jobs]`` are fields of the policy itself."""


class _Values:
    """What was set so far: (section, field) -> value, and dotted key -> (number of the file, line, file)."""

    def __init__(self) -> None:
        self.fields: dict[tuple[str, str], Any] = {}
        self.origins: dict[str, tuple[int, int, str]] = {}


def load(texts: Sequence[tuple[str, str]]) -> Policy | list[PolicyError]:
    """Build one policy from (file name, text) pairs, later over earlier; or all faults of all files.

    Keys that no text sets have the built-in defaults, which are those of ``default.toml``.  The version is
    a hash of the values, so comments, order and spelling ("60min", "1h") do not change it.  Never raises.
    Cost grows with the texts' length; the shipped file takes a few milliseconds.
    """
    values, errors = _Values(), []
    for number, (file, text) in enumerate(texts):
        errors += _read(number, file, text, values)
    policy = _build(values)
    errors = errors or _contradictions(policy, values)
    return sorted(errors, key=lambda error: (error.file, error.line, error.key)) if errors else policy


def _read(number: int, file: str, text: str, values: _Values) -> list[PolicyError]:
    """Lay one file over the values; gives its faults instead if it has any."""
    try:
        table = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        return [syntax_error(file, text, error)]
    lines = key_lines(text)
    try:
        read = PolicyFile.model_validate(table)
    except ValidationError as error:
        faults = []
        for detail in error.errors(include_url=False):
            path, line = line_of(lines, detail["loc"])
            missing = f'"{detail["loc"][-1]}" ' if detail["type"] == "missing" else ""
            message = missing + sentence(detail, KNOWN_KEYS)
            faults.append(PolicyError(file=file, line=line, key=key_text(path), message=message))
        return faults
    for name in read.model_fields_set:
        _lay(values, name, getattr(read, name), lambda path: (number, line_of(lines, path)[1], file), (name,))
    return []


def _lay(
    values: _Values,
    section: str,
    read: Section,
    origin: Callable[[tuple[str, ...]], tuple[int, int, str]],
    path: tuple[str, ...],
) -> None:
    for field in read.model_fields_set:
        alias = type(read).model_fields[field].alias or field
        value, key = getattr(read, field), (*path, alias)
        if field == "weights":
            _lay(values, f"{section}.weights", value, origin, key)
            continue
        values.fields[section, field] = growing(value)
        values.origins[".".join(key)] = origin(key)


def _build(values: _Values) -> Policy:
    sections: dict[str, dict[str, Any]] = {}
    for (section, field), value in values.fields.items():
        if (section, field) == ("completeness", "planned_tilts"):
            value = value or None
        sections.setdefault(section, {})[field] = tuple(value) if isinstance(value, list) else value
    weights = sections.pop("placement.weights", {})
    sections.setdefault("placement", {})["weights"] = PlacementPolicy().weights | weights
    records: dict[str, Any] = {name: kind(**sections.get(name, {})) for name, kind in _RECORDS.items()}
    policy = Policy(version="", **records, **sections.get("jobs", {}))
    origins = {key: f"{printable(file)}:{line}" for key, (_, line, file) in sorted(values.origins.items())}
    return replace(policy, version=_version(policy), origins=origins)


def _version(policy: Policy) -> str:
    content = json.dumps(msgspec.to_builtins(policy), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _contradictions(policy: Policy, values: _Values) -> list[PolicyError]:
    """Values that are fine alone and not together; told at the later one of the two keys."""
    found: list[PolicyError] = []
    for key, other, message in _rules(policy):
        told = [name for name in (key, other) if name in values.origins]
        name = max(told, key=values.origins.__getitem__, default=key)
        _, line, file = values.origins.get(name, (0, 1, DEFAULT_NAME))
        found.append(PolicyError(file=file, line=line, key=name, message=message))
    return found


def _rules(policy: Policy) -> list[tuple[str, str, str]]:
    wrong: list[tuple[str, str, str]] = []
    resources, retry, completeness = policy.resources, policy.retry, policy.completeness
    if resources.walltime_seconds_max < resources.walltime_seconds_min:
        sentence = "walltime_min is more than walltime_max: allowed is at most walltime_max"
        wrong.append(("resources.walltime_min", "resources.walltime_max", sentence))
    if retry.delay_seconds_max < retry.delay_seconds:
        sentence = "delay is more than delay_max: allowed is at most delay_max"
        wrong.append(("retry.delay", "retry.delay_max", sentence))
    if completeness.stale_seconds <= completeness.quiet_min_seconds:
        sentence = "stale is not more than quiet_min, so no series could ever be complete: allowed is more"
        wrong.append(("completeness.stale", "completeness.quiet_min", sentence))
    for name in ("other_node", "more_memory", "more_walltime"):
        for failure_class in sorted(set(retry.give_up) & set(getattr(retry, name))):
            sentence = f'"{failure_class}" stands in give_up and in {name}: name it in one of them'
            wrong.append((f"retry.{name}", "retry.give_up", sentence))
    return wrong
