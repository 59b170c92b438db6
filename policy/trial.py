"""The tests inside a policy: each asks the production code and compares what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import (
    Decision,
    Expected,
    Features,
    NodeInfo,
    Placement,
    Policy,
    PolicyTest,
    Record,
    ResourceRequest,
    Unplaceable,
)
from tiltd.daemon.core.units import show_bytes, show_seconds, shown_value

from .directives import filled
from .faults import PolicyError, printable
from .place import each_of, fits, place
from .rules import decide, matches, zones
from .schema_test import EVERY_ZONE
from .shape import round_up_bytes, round_up_seconds, shape

__all__ = ["Outcome", "outcome", "run_tests"]


class Outcome(Record):
    """What the policy makes of a test's dataset.  ``placement`` is ``None`` without nodes."""

    decision: Decision
    request: ResourceRequest
    placement: Placement | Unplaceable | None
    refused: dict[str, str]
    directives: tuple[str, ...]


def run_tests(policy: Policy) -> list[PolicyError]:
    """Every expectation that is not met, with the file and line of it.  Cost: the tests times their nodes."""
    found = []
    for test in policy.tests:
        result = outcome(test, policy)
        for expected in test.expected:
            if sentence := _unmet(expected, result):
                file, line = _where(policy, f"test.{test.name}", f"test.{test.name}.expect.{expected.key}")
                message = f"the test {shown_value(test.name)} fails: {sentence}"
                key = f"test.expect.{expected.key}"
                found.append(PolicyError(file=file, line=line, key=key, message=message))
    return found


def outcome(test: PolicyTest, policy: Policy) -> Outcome:
    """Decide, shape and place as the daemon does, on empty nodes."""
    features = at_any_zone(test.features, policy)
    decision = decide(features, policy)
    request = shape(test.request, features.size_bytes, policy, decision=decision, pipeline=features.pipeline)
    free = _free_of(policy)
    refused = {
        node.name: reason for node in test.nodes if (reason := fits(request, node, free(node), policy))
    }
    each = each_of(test.nodes, free, features.waiting_count)
    values = {name: getattr(features, name) for name in ("feed", "microscope", "project", "session")}
    values |= {
        name: getattr(request, name) for name in ("account", "queue", "priority", "nodes", "cores", "threads")
    }
    return Outcome(
        decision=decision,
        request=request,
        placement=place(request, test.nodes, free, policy, each=each) if test.nodes else None,
        refused=refused,
        directives=filled(
            decision.directives, {**values, "pipeline": decision.pipeline or features.pipeline}
        ),
    )


def at_any_zone(features: Features, policy: Policy) -> Features:
    """A test tells the time as it is "there", in whatever zone a rule asks for."""
    civil = features.civil.get(EVERY_ZONE)
    if civil is None:
        return features
    there = {zone: msgspec.structs.replace(civil, zone=zone) for zone in zones(policy)}
    return msgspec.structs.replace(features, civil=there)


def _free_of(policy: Policy) -> Callable[[NodeInfo], Free]:
    margin = policy.placement.scratch_margin_bytes

    def free(node: NodeInfo) -> Free:
        return Free(
            cores=node.cores_free,
            memory_bytes=node.memory_bytes,
            scratch_bytes=max(0, node.scratch_free_bytes - margin),
        )

    return free


def _where(policy: Policy, name: str, key: str) -> tuple[str, int]:
    file, _, line = (policy.origins.get(key) or policy.origins.get(name, "policy:1")).rpartition(":")
    return file, int(line)


# -- comparing -----------------------------------------------------------------------------------------------


def _unmet(expected: Expected, result: Outcome) -> str:
    """ "" where the expectation is met, else what was expected and what came."""
    if (special := _SPECIAL.get(expected.key)) is not None:
        return special(expected, result)
    found = _found(expected.key, result)
    if expected.least is None and expected.most is None:
        met = found == expected.value
        tell = _SHOW.get(expected.key, _shown)
        return "" if met else f"expected {tell(expected.value)}, found {tell(found)}"
    show = _SHOW.get(expected.key, _plain)
    least, most = expected.least, expected.most
    if least == most and least is not None:
        met = found in (least, _GRID.get(expected.key, float)(least))
        return "" if met else f"expected {show(least)}, found {show(found)}"
    if least is not None and found < least:
        return f"expected {show(least)} or more, found {show(found)}"
    return f"expected {show(most)} or less, found {show(found)}" if most is not None and found > most else ""


def _plain(figure: float) -> str:
    return f"{figure:g}"


_SHOW: dict[str, Callable[[Any], str]] = {
    "due": show_seconds,
    "memory": show_bytes,
    "scratch": show_bytes,
    "walltime": show_seconds,
}
_GRID: dict[str, Callable[[float], float]] = {
    "memory": round_up_bytes,
    "scratch": round_up_bytes,
    "walltime": round_up_seconds,
}
"""An amount is met as it was written, or as jobs get it: rounded up."""


def _found(key: str, result: Outcome) -> Any:
    """Cores, threads and walltime are those of the placement where there is one."""
    decision, request = result.decision, result.request
    placed = result.placement if isinstance(result.placement, Placement) else None
    if placed is not None and key in ("cores", "threads"):
        return getattr(placed, key)
    fields = {"memory": "memory_bytes", "scratch": "scratch_bytes", "walltime": "walltime_seconds"}
    if key in fields:
        return getattr(placed or request, fields[key])
    if key in ("nodes", "cores", "threads", "queue", "account", "priority"):
        return getattr(request, key)
    return {
        "rules": decision.rules,
        "pipeline": decision.pipeline,
        "destination": decision.destination,
        "hold": bool(decision.hold),
        "due": decision.due_seconds,
        "directives": result.directives,
        "placed": placed is not None,
    }[key]


def _properties(expected: Expected, result: Outcome) -> str:
    found = result.request.properties
    met = sorted(expected.value) == sorted(found)
    return "" if met else f"expected {_shown(expected.value)}, found {_shown(found)}"


def _part(expected: Expected, result: Outcome) -> str:
    """Of a table only the keys that are expected are compared."""
    found: Any = getattr(result.decision, expected.key)
    table = found if isinstance(found, dict) else msgspec.structs.asdict(found)
    wrong = {name: table.get(name) for name, value in expected.value.items() if table.get(name) != value}
    return f"found {', '.join(_key_and_value(name, value) for name, value in wrong.items())}" if wrong else ""


def _key_and_value(field: str, value: Any) -> str:
    """A field of a record as its key stands in a file."""
    if "_seconds" in field:
        return f'{field.replace("_seconds", "")} = "{show_seconds(value)}"'
    return f"{printable(field)} = {'not set' if value is None else _shown(value)}"


def _node(expected: Expected, result: Outcome) -> str:
    if not isinstance(result.placement, Placement):
        return f"expected a place on {_shown(expected.value)}, found {_nowhere(result)}"
    met = all(matches(expected.value, node) for node in result.placement.nodes)
    return "" if met else f"expected {_shown(expected.value)}, found {_shown(result.placement.nodes)}"


def _placed(expected: Expected, result: Outcome) -> str:
    placed = isinstance(result.placement, Placement)
    if placed == expected.value:
        return ""
    return "expected no place, found one" if placed else f"expected a place, found {_nowhere(result)}"


def _refused(expected: Expected, result: Outcome) -> str:
    wrong = []
    for node, reason in expected.value.items():
        found = result.refused.get(node, "")
        if found != reason:
            wrong.append(
                f"{printable(node)} refuses with {found}" if found else f"{printable(node)} takes it"
            )
    return f"found that {', '.join(wrong)}" if wrong else ""


def _nowhere(result: Outcome) -> str:
    if result.placement is None:
        return "that the test has no nodes"
    counted = ", ".join(f"{node}: {reason}" for node, reason in sorted(result.refused.items())[:5])
    return f"none ({counted})" if counted else "none"


_SPECIAL: dict[str, Callable[[Expected, Outcome], str]] = {
    "properties": _properties,
    "options": _part,
    "completeness": _part,
    "retry": _part,
    "node": _node,
    "placed": _placed,
    "refused": _refused,
}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(shown_value(item) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else shown_value(value)
