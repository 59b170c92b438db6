"""Policy files -> Policy, or every fault in them.  Pure: the shell reads the files and hands over texts.

    texts --tomli--> tables --schema.py--> values by key --later wins--> one set of values --> Policy --its
    own tests--> taken

Files are laid over each other key by key (a key's whole value, also where it is a table that grows with
size; ``[shares]`` and ``[placement.weights]`` entry by entry); a rule or a test replaces an earlier file's
of the same name, in its place.  The shell gives the shipped :data:`DEFAULT_NAME` first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import tomli
from msgspec.structs import replace
from pydantic import ValidationError

from tiltd.daemon.core.model import (
    BreakerPolicy,
    CompletenessPolicy,
    DeadlinePolicy,
    LearningPolicy,
    LimitPolicy,
    NoticePolicy,
    NoticeRule,
    PlacementPolicy,
    Policy,
    PolicyTest,
    Record,
    ResourcePolicy,
    RetryPolicy,
    Rule,
    SharingPolicy,
)

from .amounts import Section, growing
from .checks import contradictions, later, names_faults, names_in, sound
from .faults import PolicyError, key_text, printable, sentence, syntax_error
from .known import Known
from .lines import Path, key_lines, line_of
from .outside import outside_faults
from .schema import KNOWN_KEYS, PolicyFile, keys_of
from .trial import run_tests

__all__ = ["DEFAULT_NAME", "Known", "PolicyError", "load", "run_tests"]

DEFAULT_NAME = "default.toml"
"""The shipped policy: package data of ``tiltd.policy``, read by the shell."""

_RECORDS: dict[str, type[Record]] = {
    "completeness": CompletenessPolicy,
    "resources": ResourcePolicy,
    "learning": LearningPolicy,
    "limits": LimitPolicy,
    "sharing": SharingPolicy,
    "deadlines": DeadlinePolicy,
    "retry": RetryPolicy,
    "placement": PlacementPolicy,
    "breaker": BreakerPolicy,
    "notices": NoticePolicy,
}
"""Sections that are a record of their own; the keys of ``[jobs]`` are fields of the policy itself."""

Origin = tuple[int, int, str]
"""Number of the file, line, name of the file: in this order later is larger."""


class _Values:
    """What was set so far: (section, field) -> value, rules and tests by name, dotted key -> its origin.

    ``rules_met`` and ``notices_met`` are the names of all rules of any file, ``faulty`` the sections and
    their keys (dotted) that had to be left out.
    """

    def __init__(self) -> None:
        self.fields: dict[tuple[str, str], Any] = {}
        self.shares: dict[str, float] = {}
        self.rules: dict[str, Rule | None] = {}
        self.notices: dict[str, NoticeRule | None] = {}
        self.tests: dict[str, PolicyTest] = {}
        self.origins: dict[str, Origin] = {}
        self.rules_met: set[str] = set()
        self.notices_met: set[str] = set()
        self.faulty: set[str] = set()

    def forget(self, name: str) -> None:
        """A rule or test is replaced: what was known of its keys counts no more."""
        if name not in self.origins:
            return
        for key in [key for key in self.origins if key == name or key.startswith(f"{name}.")]:
            del self.origins[key]


class _File:
    """One file while it is read: where its keys stand."""

    def __init__(self, number: int, name: str, text: str) -> None:
        self.number, self.name = number, name
        self.lines = key_lines(text)

    def origin(self, path: Path) -> Origin:
        return self.number, line_of(self.lines, path)[1], self.name

    def error(self, path: Path, message: str) -> PolicyError:
        found, line = line_of(self.lines, path)
        return PolicyError(file=self.name, line=line, key=key_text(found), message=message)


def load(
    texts: Sequence[tuple[str, str]], *, known: Known | None = None, tested: bool = True
) -> Policy | list[PolicyError]:
    """Build one policy from (file name, text) pairs, later over earlier; or all faults of all files.

    Keys that no text sets have the built-in defaults, which are those of ``default.toml``.  ``known`` has
    the names that must exist (time zones, pipelines).  A policy whose own tests fail is refused, unless not
    ``tested``.  The version is a hash of the values, so comments, order and spelling ("60min", "1h") do not
    change it.  Never raises.  Cost grows with the texts' length; the shipped file takes a few milliseconds.
    """
    values, errors = _Values(), []
    for number, (file, text) in enumerate(texts):
        errors += _read(number, file, text, values, known)
    policy = _build(values)
    errors += _contradictions(policy, values)
    errors += [_told_at(values, name, message) for name, message in outside_faults(policy, known)]
    errors = errors or (run_tests(policy) if tested else [])
    return sorted(errors, key=lambda error: (error.file, error.line, error.key)) if errors else policy


def _read(number: int, name: str, text: str, values: _Values, known: Known | None) -> list[PolicyError]:
    """Lay one file over the values, what is sound of it; gives its faults."""
    try:
        table = tomli.loads(text)
    except (ValueError, RecursionError) as error:
        return [syntax_error(name, text, error)]
    file = _File(number, name, text)
    wrong_names = names_faults(table, values.rules_met, values.notices_met)
    faults = [file.error(path, message) for path, message in wrong_names]
    values.rules_met.update(names_in(table, "rule"))
    values.notices_met.update(names_in(table, "notice"))
    try:
        read = PolicyFile.model_validate(table, context=known)
    except ValidationError as error:
        details = error.errors(include_url=False)
        # Of ``tilts = "41"``, short for a range, both ends would be told.
        faults += dict.fromkeys(_told(file, detail) for detail in details)
        paths = [detail["loc"] for detail in details]
        values.faulty |= {".".join(map(str, path[:2])) for path in paths}
        try:
            read = PolicyFile.model_validate(sound(table, paths), context=known)
        except ValidationError:  # never seen; what was found first is true in any case
            return faults
    for section in sorted(read.model_fields_set - {"rule", "notice", "test", "shares"}):
        _lay(values, section, getattr(read, section), file, (section,))
    for project, weight in (read.shares or {}).items():
        values.shares[project] = weight
        values.origins[f"shares.{project}"] = file.origin(("shares", project))
    _lay_rules(values, read, file)
    _lay_notices(values, read, file)
    _lay_tests(values, read, file)
    return faults


def _told(file: _File, detail: Any) -> PolicyError:
    path = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    missing = f'"{detail["loc"][-1]}" ' if detail["type"] == "missing" else ""
    return file.error(path, missing + sentence(detail, KNOWN_KEYS))


def _lay(values: _Values, section: str, read: Section, file: _File, path: tuple[str, ...]) -> None:
    for field in sorted(read.model_fields_set):
        alias = type(read).model_fields[field].alias or field
        value, key = getattr(read, field), (*path, alias)
        if field == "weights":
            _lay(values, f"{section}.weights", value, file, key)
            continue
        values.fields[section, field] = growing(value)
        values.origins[".".join(key)] = file.origin(key)


def _lay_rules(values: _Values, read: PolicyFile, file: _File) -> None:
    for index, rule in enumerate(read.rule or ()):
        name, path = f"rule.{rule.name}", ("rule", index)
        values.forget(name)
        values.rules[rule.name] = rule.record() if rule.enabled else None
        values.origins[name] = file.origin(path)
        for kind in ("when", "set"):
            _note_keys(values, f"{name}.{kind}", getattr(rule, kind), file, (*path, kind))


def _lay_notices(values: _Values, read: PolicyFile, file: _File) -> None:
    for index, notice in enumerate(read.notice or ()):
        name = f"notice.{notice.name}"
        values.forget(name)
        values.notices[notice.name] = notice.record() if notice.enabled else None
        values.origins[name] = file.origin(("notice", index))
        _note_keys(values, f"{name}.when", notice.when, file, ("notice", index, "when"))


def _lay_tests(values: _Values, read: PolicyFile, file: _File) -> None:
    for index, test in enumerate(read.test or ()):
        name, path = f"test.{test.name}", ("test", index)
        values.forget(name)
        values.tests[test.name] = test.record()
        values.origins[name] = file.origin(path)
        _note_keys(values, f"{name}.expect", test.expect, file, (*path, "expect"))


def _note_keys(values: _Values, name: str, table: Section | None, file: _File, path: Path) -> None:
    """Where each key of a rule's or test's table stands, and those of [completeness] and [retry] in it."""
    if table is None:
        return
    for key, field in keys_of(type(table)).items():
        field_name = next(n for n, f in type(table).model_fields.items() if f is field)
        if field_name not in table.model_fields_set:
            continue
        values.origins[f"{name}.{key}"] = file.origin((*path, key))
        inner = getattr(table, field_name)
        if key in ("completeness", "retry"):
            _note_keys(values, f"{name}.{key}", inner, file, (*path, key))
        elif key == "options":
            for option in inner:
                values.origins[f"{name}.{key}.{option}"] = file.origin((*path, key, option))


def _build(values: _Values) -> Policy:
    sections: dict[str, dict[str, Any]] = {}
    for (section, field), value in values.fields.items():
        if (section, field) == ("completeness", "planned_tilts"):
            value = value or None
        sections.setdefault(section, {})[field] = tuple(value) if isinstance(value, list) else value
    weights = sections.pop("placement.weights", {})
    sections.setdefault("placement", {})["weights"] = PlacementPolicy().weights | weights
    records: dict[str, Any] = {name: kind(**sections.get(name, {})) for name, kind in _RECORDS.items()}
    policy = Policy(
        version="",
        **records,
        **sections.get("jobs", {}),
        rules=tuple(rule for rule in values.rules.values() if rule is not None),
        shares=values.shares,
        tests=tuple(values.tests.values()),
        notice_rules=tuple(rule for rule in values.notices.values() if rule is not None),
    )
    origins = {key: f"{printable(file)}:{line}" for key, (_, line, file) in sorted(values.origins.items())}
    return replace(policy, version=_version(policy), origins=origins)


def _version(policy: Policy) -> str:
    builtins = msgspec.to_builtins(policy)
    builtins["shares"] = list(policy.shares.items())  # the first pattern that matches counts
    content = json.dumps(builtins, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _contradictions(policy: Policy, values: _Values) -> list[PolicyError]:
    """Each told at the later one of its two keys."""
    found: list[PolicyError] = []
    for key, other, message in contradictions(policy):
        if {key, other, key.partition(".")[0], other.partition(".")[0]} & values.faulty:
            continue  # one of the two values is not what the operator means
        found.append(_told_at(values, later(values.origins, (key, other)), message))
    return found


def _told_at(values: _Values, name: str, message: str) -> PolicyError:
    _, line, file = values.origins.get(name, (0, 1, DEFAULT_NAME))
    return PolicyError(file=file, line=line, key=printable(name), message=message)
