"""What changes from one policy to another: its values, what is made of datasets, and who hears of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from tiltd.daemon.core.model import (
    Features,
    NodeInfo,
    Placement,
    Policy,
    Record,
    ResourceRequest,
    Unplaceable,
)
from tiltd.policy.predict import Samples
from tiltd.policy.trial import at_any_zone

from .explain import Explanation, ToldRule, explain, summary

EXAMPLE_SIZES = (
    500_000_000, 1_300_000_000, 2_600_000_000, 4_500_000_000, 9_000_000_000, 20_000_000_000,
)  # fmt: skip
EXAMPLE_WAITING = (0, 200)
EXAMPLE_ATTEMPTS = (1, 2)
NOT_VALUES = frozenset({"version", "origins", "tests"})
DECIDED = (
    "cores_min", "queue", "account", "priority", "properties", "only_nodes", "not_nodes", "pipeline",
    "options", "destination", "directives", "hold", "due_seconds", "completeness", "retry",
)  # fmt: skip


TABLES = frozenset({"completeness", "retry"})
"""Of these only the keys that differ are told."""


class Case(Record):
    """A dataset to compare by; ``asked`` is what its pipeline asks."""

    title: str
    features: Features
    asked: ResourceRequest = ResourceRequest()


class Change(Record):
    """``fields`` is name -> (under the old policy, under the new)."""

    title: str
    fields: dict[str, tuple[Any, Any]]


class Difference(Record):
    """``values`` are the keys that differ, with where each was set."""

    old_version: str
    new_version: str
    values: tuple[Change, ...]
    examples: tuple[Change, ...]
    example_count: int
    history: tuple[Change, ...] = ()
    history_count: int = 0


def difference(
    old: Policy,
    new: Policy,
    *,
    feeds: Mapping[str, str],
    history: Sequence[Case] = (),
    nodes: tuple[NodeInfo, ...] = (),
    samples: Samples | None = None,
) -> Difference:
    """``feeds`` is name -> pipeline, for the examples.  Cost: the cases, twice decided."""
    examples = list(examples_of(old, new, feeds))
    return Difference(
        old_version=old.version,
        new_version=new.version,
        values=tuple(_values(old, new)),
        examples=tuple(changes(examples, old, new, nodes, samples)),
        example_count=len(examples),
        history=tuple(changes(history, old, new, nodes, samples)),
        history_count=len(history),
    )


def examples_of(old: Policy, new: Policy, feeds: Mapping[str, str]) -> Iterable[Case]:
    """Sizes, attempts and queues for every feed, and the datasets of both policies' own tests."""
    for feed, pipeline in (feeds or {"": ""}).items():
        for size in EXAMPLE_SIZES:
            for attempt in EXAMPLE_ATTEMPTS:
                for waiting in EXAMPLE_WAITING:
                    title = f"{feed or 'any feed'}, {size / 1e9:g}GB, attempt {attempt}, {waiting} waiting"
                    yield Case(
                        title=title,
                        features=Features(
                            feed=feed, pipeline=pipeline, size_bytes=size, attempt_number=attempt,
                            waiting_count=waiting,
                        ),
                    )  # fmt: skip
    tests = {test.name: test for test in (*old.tests, *new.tests)}
    for test in tests.values():
        yield Case(title=f"test {test.name}", features=test.features, asked=test.request)


def changes(
    cases: Iterable[Case],
    old: Policy,
    new: Policy,
    nodes: tuple[NodeInfo, ...],
    samples: Samples | None,
) -> Iterable[Change]:
    """The cases that come out differently."""
    for case in cases:
        before, after = (
            _outcome(
                explain(
                    at_any_zone(case.features, policy), policy, asked=case.asked, samples=samples, nodes=nodes
                )
            )
            for policy in (old, new)
        )
        pairs = {key: (before.get(key), after.get(key)) for key in before | after}
        if fields := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
            yield Change(title=case.title, fields=fields)


def _outcome(found: Explanation) -> dict[str, Any]:
    told = summary(found)
    del told["policy_version"]
    decided: dict[str, Any] = {}
    for key in DECIDED:
        value = msgspec.to_builtins(getattr(found.decision, key))
        decided |= {f"{key}.{part}": each for part, each in value.items()} if key in TABLES else {key: value}
    match found.placement:
        case Placement() as placement:
            told["placed_on"] = list(placement.nodes)
        case Unplaceable():
            told["placed_on"] = []
    return told | decided | _heard(found.told)


def _heard(rules: Iterable[ToldRule]) -> dict[str, list[str]]:
    """Who would hear of such a series, and of which events."""
    heard: dict[str, set[str]] = {}
    for rule in rules:
        for to in rule.to:
            how = " in a digest" if rule.how == "digest" else ""
            heard.setdefault(f"tells {to}{how}", set()).update(rule.events)
    return {key: sorted(events) for key, events in heard.items()}


def _values(old: Policy, new: Policy) -> Iterable[Change]:
    before, after = _flat(old), _flat(new)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield Change(title=key, fields={"value": (before.get(key), after.get(key))})


def _flat(policy: Policy) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(replace(policy, version="", origins={}, tests=()))
    found: dict[str, Any] = {}
    for section, value in plain.items():
        if section in NOT_VALUES:
            continue
        if section == "rules":
            found |= {f"rule.{rule['name']}": rule for rule in value}
            found["rules (order)"] = [rule["name"] for rule in value]
        elif section == "notice_rules":
            found |= {f"notice.{rule['name']}": rule for rule in value}
        elif isinstance(value, dict):
            found |= {f"{section}.{key}": each for key, each in value.items()}
        else:
            found[section] = value
    return found
