"""What the policy makes of one dataset, and why: the daemon's own steps, each with what it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Any

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import (
    Condition,
    Decision,
    Features,
    NodeInfo,
    Placement,
    Policy,
    Record,
    ResourceRequest,
    Unplaceable,
)
from tiltd.daemon.core.units import show_bytes, shown_value
from tiltd.policy.filters import least_cores
from tiltd.policy.needs import Needs, asked_of, needs
from tiltd.policy.notices import heard
from tiltd.policy.place import each_of, fits, place
from tiltd.policy.predict import Prediction, Samples, predict
from tiltd.policy.rules import decide, trace
from tiltd.policy.shape import shape

RESOURCE_KEYS = (
    "nodes", "cores", "cores_min", "threads", "memory_factor", "memory_min", "memory_by_size",
    "scratch_factor", "scratch_min", "scratch_by_size", "walltime_factor", "walltime_min", "walltime_max",
    "walltime_by_size", "queue", "account", "priority", "directives",
)  # fmt: skip
"""Keys of ``[resources]`` that a decision starts from."""
_PROPERTY = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)


class TriedRule(Record):
    """``failed`` is the first condition that does not hold, in words; "" for a rule that matched."""

    name: str
    origin: str
    matched: bool
    failed: str


class RefusedNode(Record):
    node: str
    reason: str
    detail: str


class ToldRule(Record):
    """A rule of notices that speaks of such a series, and of which events."""

    name: str
    origin: str
    how: str
    to: tuple[str, ...]
    events: tuple[str, ...]


class Explanation(Record):
    """All that was decided.  ``origins`` is key -> file:line of what set it; ``needs`` is what measured peaks
    made of the memory and scratch asked."""

    features: Features
    asked: ResourceRequest
    decision: Decision
    request: ResourceRequest
    rules: tuple[TriedRule, ...]
    origins: dict[str, str]
    prediction: Prediction
    needs: Needs
    placement: Placement | Unplaceable | None
    refused: tuple[RefusedNode, ...]
    policy_version: str
    told: tuple[ToldRule, ...] = ()


def explain(
    features: Features,
    policy: Policy,
    *,
    asked: ResourceRequest | None = None,
    samples: Samples | None = None,
    nodes: tuple[NodeInfo, ...] = (),
    now: float | None = None,
) -> Explanation:
    """Pure.  Cost: the rules, and the nodes twice."""
    asked = asked or ResourceRequest()
    decision = decide(features, policy)
    pipeline = decision.pipeline or features.pipeline
    request = shape(asked, features.size_bytes, policy, decision=decision, pipeline=pipeline, samples=samples)
    free = free_of(policy)
    each = each_of(nodes, free, features.waiting_count)
    placement = place(request, nodes, free, policy, now=now, each=each) if nodes else None
    at = placement if isinstance(placement, Placement) else request
    prediction = predict(
        samples or Samples(),
        pipeline=pipeline,
        cores=at.cores,
        threads=at.threads,
        size_bytes=features.size_bytes,
        asked=asked_of(asked),
    )
    refused = []
    for node in nodes:
        if reason := fits(request, node, free(node), policy, now=now):
            detail = _refusal(reason, request, node, free(node))
            refused.append(RefusedNode(node=node.name, reason=reason, detail=detail))
    return Explanation(
        features=features,
        asked=asked,
        decision=decision,
        request=request,
        rules=tuple(_tried(features, policy)),
        origins=_origins(decision, policy),
        prediction=prediction,
        needs=needs(
            asked, features.size_bytes, decision, policy.learning, pipeline=pipeline, samples=samples
        ),
        placement=placement,
        refused=tuple(refused),
        policy_version=policy.version,
        told=_told(policy, features),
    )


def _told(policy: Policy, features: Features) -> tuple[ToldRule, ...]:
    return tuple(
        ToldRule(
            name=rule.name,
            origin=policy.origins.get(f"notice.{rule.name}", ""),
            how=rule.how,
            to=rule.to,
            events=tuple(events),
        )
        for rule, events in heard(policy, features)
    )


def summary(found: Explanation) -> dict[str, Any]:
    """What a program wants first: the shape, as placed where nodes were given and one takes it."""
    placed = found.placement if isinstance(found.placement, Placement) else None
    at: Placement | ResourceRequest = placed or found.request
    return {
        "nodes": len(placed.nodes) if placed else found.request.nodes,
        "cores": at.cores,
        "threads": at.threads,
        "memory_bytes": at.memory_bytes,
        "scratch_bytes": at.scratch_bytes,
        "walltime_seconds": at.walltime_seconds,
        "rule": found.decision.rule,
        "policy_version": found.policy_version,
    }


def submit_filter(found: Explanation, size_bytes: int) -> list[str]:
    """The same as lines for ``deploy/torque/submitfilter``, which every user's qsub reads as shell: nothing
    stands in them but figures, and properties by their letters, others being
    left out.
    """
    decided = summary(found)
    minutes, seconds = divmod(ceil(decided["walltime_seconds"]), 60)
    hours, minutes = divmod(minutes, 60)
    properties = [name for name in found.decision.properties if _PROPERTY.fullmatch(name)]
    version = "".join(letter for letter in found.policy_version if letter.isalnum())
    return [
        f"# Written by tiltd policy explain --submit-filter, policy {version}, for {show_bytes(size_bytes)}.",
        f"nodes={decided['nodes']}",
        f"ppn={decided['cores']}",
        f"walltime={hours:02d}:{minutes:02d}:{seconds:02d}",
        f"property={':'.join(properties)}",
    ]


def free_of(policy: Policy) -> Callable[[NodeInfo], Free]:
    """What nodes have by their own figures, less the policy's margin."""
    margin = policy.placement.scratch_margin_bytes

    def free(node: NodeInfo) -> Free:
        return Free(
            cores=node.cores_free,
            memory_bytes=node.memory_bytes,
            scratch_bytes=max(0, node.scratch_free_bytes - margin),
        )

    return free


def _tried(features: Features, policy: Policy) -> list[TriedRule]:
    return [
        TriedRule(
            name=tried.rule.name,
            origin=policy.origins.get(f"rule.{tried.rule.name}", ""),
            matched=tried.matched,
            failed="" if tried.failed is None else _words(tried.failed, features),
        )
        for tried in trace(features, policy)
    ]


def _words(condition: Condition, features: Features) -> str:
    """The condition, and what the dataset has instead."""
    if condition.patterns:
        wanted = f"is none of {', '.join(map(shown_value, condition.patterns))}"
    elif condition.numbers:
        wanted = f"is not among {', '.join(map(str, condition.numbers))} in {condition.zone}"
    else:
        show = show_bytes if condition.key == "size" else _figure
        parts = [f"at least {show(condition.least)}"] if condition.least is not None else []
        parts += [f"at most {show(condition.most)}"] if condition.most is not None else []
        wanted = f"is not {' and '.join(parts)}"
    return f"{condition.key} ({_have(condition, features)}) {wanted}"


def _figure(value: float) -> str:
    return f"{value:g}"


def _have(condition: Condition, features: Features) -> str:
    key = condition.key
    fields: dict[str, Any] = {
        "size": show_bytes(features.size_bytes),
        "tilts": features.tilt_count,
        "image_size": features.image_size and max(features.image_size),
        "pixel_size": features.pixel_spacing_angstrom,
        "attempt": features.attempt_number,
        "waiting": features.waiting_count,
    }
    if key in fields:
        return "not known" if fields[key] is None else str(fields[key])
    if key in ("hours", "weekdays"):
        civil = features.civil.get(condition.zone)
        return "not known" if civil is None else str(civil.hour if key == "hours" else civil.weekday)
    if key.startswith("labels."):
        return _text(features.labels.get(key.removeprefix("labels."), ""))
    return _text(getattr(features, key, "") or features.labels.get(key, ""))


def _text(value: str) -> str:
    return shown_value(value) if value else "not known"


def _origins(decision: Decision, policy: Policy) -> dict[str, str]:
    shipped = {
        key: policy.origins[f"resources.{key}"]
        for key in RESOURCE_KEYS
        if f"resources.{key}" in policy.origins
    }
    shipped |= {"properties": policy.origins.get("placement.properties", "")}
    return {key: origin for key, origin in (shipped | decision.origins).items() if origin}


def _refusal(reason: str, request: ResourceRequest, node: NodeInfo, free: Free) -> str:
    match reason:
        case "cores":
            return f"{least_cores(request, node)} cores are needed, {free.cores} of {node.cores} are free"
        case "memory":
            need, have = show_bytes(request.memory_bytes), show_bytes(free.memory_bytes)
            return f"{need} of memory are needed, it has {have}"
        case "scratch":
            need, have = show_bytes(request.scratch_bytes), show_bytes(free.scratch_bytes)
            return f"{need} of scratch are needed, {have} are free"
        case "properties":
            missing = [wanted for wanted in request.properties if wanted not in node.properties]
            return f"it has no property {', '.join(missing)}"
        case _:
            return node.comment or f"it is {node.state}"
