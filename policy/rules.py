"""Which rules match a dataset, and what do they make of it?  (features, policy) -> Decision.

    features --rule by rule, in order--> those that match --later wins, key by key--> Decision

Rules are compiled once a policy: the conditions of a rule are sorted by cost, texts without wildcards are
looked up in a set.  A rule costs about half a microsecond (``tests/benchmarks/bench_rules.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from tiltd.daemon.core.model import Condition, Decision, Features, Policy, Record, Rule

__all__ = ["Tried", "decide", "depends_on_completeness", "holds", "matches", "test_of", "trace", "zones"]

Test = Callable[[Features], bool]

GROWING = {
    "cores": "cores",
    "threads": "threads",
    "memory": "memory_bytes",
    "memory_by_size": "memory_by_size_bytes",
    "scratch": "scratch_bytes",
    "scratch_by_size": "scratch_by_size_bytes",
    "walltime": "walltime_seconds",
    "walltime_by_size": "walltime_by_size_seconds",
}
"""Keys whose value grows with size -> the field of the decision that has the figure."""

PLAIN = {
    "nodes": "nodes",
    "cores_min": "cores_min",
    "memory_factor": "memory_factor",
    "memory_min": "memory_bytes_min",
    "scratch_factor": "scratch_factor",
    "scratch_min": "scratch_bytes_min",
    "walltime_factor": "walltime_factor",
    "walltime_min": "walltime_seconds_min",
    "walltime_max": "walltime_seconds_max",
    "queue": "queue",
    "account": "account",
    "priority": "priority",
    "properties": "properties",
    "only_nodes": "only_nodes",
    "not_nodes": "not_nodes",
    "pipeline": "pipeline",
    "destination": "destination",
    "directives": "directives",
    "hold": "hold",
    "due": "due_seconds",
}
"""Keys whose value is taken as it is -> the field of the decision.  Beside them there are ``options``,
``completeness`` and ``retry``, which are laid over what there is key by key."""

_COUNTS = frozenset({"cores", "threads"})
_BYTES = frozenset({"memory", "scratch"})


class Tried(Record):
    """One rule that was tried: ``failed`` is the first condition (in order of cost) that does not hold."""

    rule: Rule
    matched: bool
    failed: Condition | None = None


def decide(features: Features, policy: Policy) -> Decision:
    """What the policy says of this dataset.  Pure; cost grows with the rules, some tens of microseconds."""
    sets: dict[str, Any] = {}
    names: list[str] = []
    origins: dict[str, str] = {}
    for tests, rule in _compiled(policy):
        for test in tests:
            if not test(features):
                break
        else:
            names.append(rule.name)
            for key, value in rule.sets.items():
                sets[key] = {**sets.get(key, {}), **value} if isinstance(value, dict) else value
                origins[key] = policy.origins.get(f"rule.{rule.name}.set.{key}", "")
            if rule.stop:
                break
    return _decision(features.size_bytes, policy, sets, tuple(names), origins)


def trace(features: Features, policy: Policy) -> list[Tried]:
    """Every rule that was tried, in order, and why it does not match; for ``tiltd policy explain``."""
    tried = []
    for rule in policy.rules:
        failed = next((c for c in _by_cost(rule.conditions) if not holds(c, features)), None)
        tried.append(Tried(rule=rule, matched=failed is None, failed=failed))
        if failed is None and rule.stop:
            break
    return tried


def holds(condition: Condition, features: Features) -> bool:
    """Does this one condition hold?"""
    return _test(condition)(features)


def test_of(condition: Condition) -> Test:
    """The same, made ready to be asked often."""
    return _test(condition)


def matches(patterns: Iterable[str], text: str) -> bool:
    """Is the text like one of the patterns (``*`` any characters, ``?`` one)?  Cost: their lengths."""
    return _remembered(tuple(patterns))(text)


def zones(policy: Policy) -> tuple[str, ...]:
    """The time zones that rules and ``[notices]`` speak of; the shell gives a ``CivilTime`` for each in
    ``Features.civil``."""
    named = {condition.zone for rule in policy.rules for condition in rule.conditions}
    if policy.notices.digest_hours:
        named.add(policy.notices.zone)
    return tuple(sorted(named - {""}))


def depends_on_completeness(policy: Policy) -> bool:
    """Does any rule say when a series counts as complete?  Else an arriving series needs no decision."""
    return any("completeness" in rule.sets for rule in policy.rules)


def uses(policy: Policy, key: str) -> bool:
    """Does any rule's ``when`` have this key ("waiting", "attempt", "hours", ...)?"""
    return any(condition.key == key for rule in policy.rules for condition in rule.conditions)


# -- conditions --------------------------------------------------------------------------------------------

_TEXTS: dict[str, Callable[[Features], str]] = {
    "feed": attrgetter("feed"),
    "microscope": lambda features: features.microscope or features.labels.get("microscope", ""),
    "project": lambda features: features.project or features.labels.get("project", ""),
    "session": lambda features: features.session or features.labels.get("session", ""),
    "pipeline": attrgetter("pipeline"),
    "name": attrgetter("name"),
}

_FIGURES: dict[str, Callable[[Features], float | None]] = {
    "size": attrgetter("size_bytes"),
    "tilts": attrgetter("tilt_count"),
    "image_size": lambda features: None if features.image_size is None else max(features.image_size),
    "pixel_size": attrgetter("pixel_spacing_angstrom"),
    "attempt": attrgetter("attempt_number"),
    "waiting": attrgetter("waiting_count"),
}

_COSTS = (*_FIGURES, "hours", "weekdays", "feed", "pipeline", "microscope", "project", "session", "name")


def _by_cost(conditions: Iterable[Condition]) -> list[Condition]:
    def cost(condition: Condition) -> tuple[bool, int]:
        wild = any(mark in pattern for pattern in condition.patterns for mark in "*?")
        known = condition.key in _COSTS
        return wild, _COSTS.index(condition.key) if known else len(_COSTS)

    return sorted(conditions, key=cost)


def _test(condition: Condition) -> Test:
    if (figure := _FIGURES.get(condition.key)) is not None:
        least = float("-inf") if condition.least is None else condition.least
        most = float("inf") if condition.most is None else condition.most
        return lambda features: (value := figure(features)) is not None and least <= value <= most
    if condition.key in ("hours", "weekdays"):
        return _civil_test(condition)
    match = _matcher(condition.patterns)
    if (text := _TEXTS.get(condition.key)) is not None:
        return lambda features: match(text(features))
    label = condition.key.removeprefix("labels.")
    return lambda features: match(features.labels.get(label, ""))


def _civil_test(condition: Condition) -> Test:
    zone, numbers, hours = condition.zone, frozenset(condition.numbers), condition.key == "hours"

    def test(features: Features) -> bool:
        civil = features.civil.get(zone)
        return civil is not None and (civil.hour if hours else civil.weekday) in numbers

    return test


@lru_cache(maxsize=256)
def _remembered(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    return _matcher(patterns)


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    plain = frozenset(pattern for pattern in patterns if "*" not in pattern and "?" not in pattern)
    if len(plain) == len(set(patterns)):
        return plain.__contains__
    wild = [_wild(pattern) for pattern in patterns if pattern not in plain]
    return lambda text: text in plain or any(match(text) for match in wild)


def _wild(pattern: str) -> Callable[[str], bool]:
    """No regular expression: one with many ``*`` could be made to run for ever by a hostile name."""
    first, *parts = [
        re.compile(_escaped(part), re.DOTALL) for part in re.sub(r"\*+", "*", pattern).split("*")
    ]

    def match(text: str) -> bool:
        found = first.match(text) if parts else first.fullmatch(text)
        if found is None or not parts:
            return found is not None
        position = found.end()
        for part in parts[:-1]:
            if (found := part.search(text, position)) is None:
                return False
            position = found.end()
        tail = len(text) - _length(parts[-1])
        return tail >= position and parts[-1].fullmatch(text, tail) is not None

    return match


def _escaped(part: str) -> str:
    return "".join("." if letter == "?" else re.escape(letter) for letter in part)


def _length(part: re.Pattern[str]) -> int:
    return len(re.sub(r"\\(.)", r"\1", part.pattern, flags=re.DOTALL))


# -- the decision ------------------------------------------------------------------------------------------

_Compiled = list[tuple[tuple[Test, ...], Rule]]


class _Same:
    """The rules of one policy, told from others by identity: comparing them would cost more than deciding."""

    __slots__ = ("rules",)

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules

    def __hash__(self) -> int:
        return id(self.rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.rules is self.rules


def _compiled(policy: Policy) -> _Compiled:
    """The rules with their tests ready made."""
    if not policy.rules:
        return []
    return _compiled_rules(_Same(policy.rules))


@lru_cache(maxsize=8)  # keeps the rules too, so that no others can have their identity; safe among threads
def _compiled_rules(same: _Same) -> _Compiled:
    return [(tuple(_test(c) for c in _by_cost(rule.conditions)), rule) for rule in same.rules]


def _decision(
    size_bytes: int, policy: Policy, sets: dict[str, Any], names: tuple[str, ...], origins: dict[str, str]
) -> Decision:
    defaults, placement = policy.resources, policy.placement
    decision = Decision(
        rules=names,
        origins=origins,
        nodes=defaults.nodes,
        cores=count(defaults.cores.at(size_bytes)),
        threads=count(defaults.threads.at(size_bytes)),
        cores_min=defaults.cores_min,
        memory_factor=defaults.memory_factor,
        memory_bytes_min=defaults.memory_bytes_min,
        memory_by_size_bytes=defaults.memory_by_size.at(size_bytes),
        scratch_factor=defaults.scratch_factor,
        scratch_bytes_min=defaults.scratch_bytes_min,
        scratch_by_size_bytes=defaults.scratch_by_size.at(size_bytes),
        walltime_factor=defaults.walltime_factor,
        walltime_seconds_min=defaults.walltime_seconds_min,
        walltime_seconds_max=defaults.walltime_seconds_max,
        walltime_by_size_seconds=defaults.walltime_by_size.at(size_bytes),
        queue=defaults.queue,
        account=defaults.account,
        priority=defaults.priority,
        directives=defaults.directives,
        properties=placement.properties,
        only_nodes=placement.only_nodes,
        not_nodes=placement.not_nodes,
        due_seconds=policy.deadlines.within_seconds,
        completeness=policy.completeness,
        retry=policy.retry,
    )
    if not sets:
        return decision
    values: dict[str, Any] = {}
    for key, value in sets.items():
        if (field := GROWING.get(key)) is not None:
            figure = value.at(size_bytes)
            values[field] = count(figure) if key in _COUNTS else int(figure) if key in _BYTES else figure
        elif (field := PLAIN.get(key)) is not None:
            values[field] = value
        elif key == "options":
            values[key] = value
        else:
            values[key] = msgspec.structs.replace(getattr(decision, key), **value)
    return msgspec.structs.replace(decision, **values)


def count(value: float) -> int:
    """Cores or threads: whole, and at least one."""
    return max(1, int(value + 0.5))
