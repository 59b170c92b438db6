"""Observations in any order, sensible or not: the core never raises, and what must hold holds."""

from __future__ import annotations

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.scene import GB, SITE, node, sighting
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import (
    BreakerPolicy,
    CompletenessPolicy,
    Failure,
    Job,
    JobState,
    Policy,
    Problem,
    Progress,
    RunEnd,
    dataset_id,
)
from tiltd.daemon.simulate.check import Watch, check
from tiltd.daemon.simulate.scene import SimulatedPipeline

NAMES = ("A", "B")
NODES = ("n1", "n2")
IDS = [dataset_id("a", f"{name}.mrc", name, revision, 1) for name in NAMES for revision in (1, 2)]
ATTEMPTS = [f"{known}.a{number}" for known in IDS for number in (1, 2, 3)] + ["x.1.1.a1"]
OUTCOMES = ("success", "failed", "scratch_short", "input_changed", "stranded", "fenced", "terminated")
POLICY = Policy(
    version="t",
    completeness=CompletenessPolicy(quiet_min_seconds=30.0),
    breaker=BreakerPolicy(series=1, probe_seconds=60.0),
)

attempts = st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, *ATTEMPTS[:3], ATTEMPTS[-1]])
"""The n-th that is live, or a name that may mean nothing."""
flags = st.booleans()
troubles = st.sampled_from(["", "", "no"])


@st.composite
def files(draw: Any) -> dict[str, Any]:
    name, content = draw(st.sampled_from(NAMES)), draw(st.sampled_from("12"))
    whole = sighting(name, content)
    known = {
        "known_revision": draw(st.sampled_from([0, 1, 2])),
        "known_digest": whole.series.fingerprint.digest,
    }  # type: ignore[union-attr]
    kind = draw(st.sampled_from(["whole", "whole", "stat", "partial", "gone"]))
    if kind == "gone":
        return {"kind": o.FilesObserved, "feed": "a", "up": draw(flags), "gone": (f"{name}.mrc",)}
    changes: dict[str, Any] = {"stat": {"series": None}}.get(kind, {})
    if kind == "partial":
        changes = {"problems": (Problem(code="size_short", detail="x"),)}
    seen = sighting(name, content, **changes, **known)
    return {
        "kind": o.FilesObserved,
        "feed": "a",
        "up": True,
        "sightings": (seen,),
        "first": draw(st.sampled_from([False] * 19 + [True])),
    }


@st.composite
def spool(draw: Any) -> dict[str, Any]:
    job = draw(st.sampled_from(["", "j1", "j2"]))
    end = None
    if draw(flags):
        end = RunEnd(
            job_id=job, nonce="", outcome=draw(st.sampled_from(OUTCOMES)), ended_at=0.0, node="n1", reason="x"
        )
    progress = Progress(phase="staging", at=0.0) if draw(flags) else None
    return {
        "kind": o.SpoolObserved,
        "attempt_id": draw(attempts),
        "claimed_by": job,
        "progress": progress,
        "end": end,
    }


@st.composite
def jobs(draw: Any) -> dict[str, Any]:
    states = st.sampled_from([None, *JobState])
    listed = [(job_id, draw(states)) for job_id in ("j1", "j2")]
    rows = tuple(
        Job(job_id=job_id, job_name="", owner="", state=state)
        for job_id, state in listed
        if state is not None
    )
    return {"kind": o.JobsObserved, "jobs": rows, "complete": draw(flags), "asked_at": None}


@st.composite
def operators(draw: Any) -> dict[str, Any]:
    actions = ("hold", "release", "retry", "rerun", "cancel", "accept", "close_breaker")
    return {
        "kind": o.OperatorAsked,
        "action": draw(st.sampled_from(actions)),
        "dataset_id": draw(st.sampled_from([0, 0, 1, 2, *IDS])),
        "by": "op",
        "request_id": "1",
        "reason": draw(st.sampled_from(["", "node:n1", "feed:a"])),
    }


def answer(kind: type[o.Answer], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"kind": st.just(kind), "attempt_id": attempts, "trouble": troubles, "permanent": flags, **fields}
    )


FAILURE = Failure(failure_class="destination", reason="x", detail="x")
answers = st.one_of(
    answer(
        o.SubmitAnswered,
        job_id=st.sampled_from(["", "j1", "j2"]),
        result_path=st.sampled_from(["", "", "", "/r"]),
    ),
    answer(o.RevokeAnswered, revoked=flags, claimed_by=st.sampled_from(["", "j1"])),
    answer(o.FenceAnswered),
    answer(o.CancelAnswered),
    answer(
        o.CollectAnswered,
        result_path=st.sampled_from(["", "/r"]),
        verdict=st.sampled_from(["good", "bad", "doubtful"]),
        occupied=flags,
        damaged=flags,
        failure=st.sampled_from([None, FAILURE]),
    ),
    answer(o.ReleaseAnswered, node=st.sampled_from(NODES)),
)
node_states = st.fixed_dictionaries(
    {
        "kind": st.just(o.NodesObserved),
        "states": st.lists(st.sampled_from(["free", "busy", "down", None]), min_size=2, max_size=2),
    }
)
waits = st.fixed_dictionaries(
    {"kind": st.just(o.TimeReached), "seconds": st.sampled_from([1.0, 40.0, 700.0, 4000.0])}
)
anything = st.lists(  # long, so that much can happen to two datasets
    st.one_of(files(), files(), spool(), jobs(), operators(), answers, answers, node_states, waits),
    min_size=10,
    max_size=60,
)


def observation(now: float, fields: dict[str, Any], core: Core) -> o.Observation:
    fields = dict(fields)
    if isinstance(number := fields.get("attempt_id"), int):
        known = sorted(a.attempt_id for d in core.state.datasets.values() for a in d.attempts[-1:])
        fields["attempt_id"] = known[number % len(known)] if known else ATTEMPTS[-1]
    if isinstance(number := fields.get("dataset_id"), int):
        live = sorted(core.state.datasets)
        fields["dataset_id"] = live[number % len(live)] if live else IDS[0]
    kind = fields.pop("kind")
    if kind is o.NodesObserved:
        states = zip(NODES, fields["states"], strict=True)
        return o.NodesObserved(
            at=now, nodes=tuple(node(name, now, state=state, cores=8) for name, state in states if state)
        )
    if kind is o.TimeReached:
        fields = {}
    if kind is o.JobsObserved:
        fields["asked_at"] = now
    made: o.Observation = kind(at=now, **fields)
    return made


BEGINNING: list[dict[str, Any]] = [
    {"kind": o.FilesObserved, "feed": "a", "up": True, "sightings": tuple(sighting(name) for name in NAMES)},
    {"kind": o.TimeReached, "seconds": 40.0},
]


@settings(max_examples=60, phases=[Phase.generate], deadline=None)
@given(anything)
def test_nothing_breaks_the_core(told: list[dict[str, Any]]) -> None:
    core, watch = Core(SITE, POLICY, {"simulated": SimulatedPipeline()}), Watch()
    now, finished = 0.0, {}
    watch.step(core.handle(observation(now, {"kind": o.NodesObserved, "states": ["free", "free"]}, core)))
    for fields in [*BEGINNING, *told]:
        now += fields.get("seconds", 0.5)
        seen = observation(now, fields, core)
        if isinstance(seen, o.OperatorAsked) and seen.dataset_id in finished:
            seen = replace(seen, record=finished[seen.dataset_id])
        step = core.handle(seen)
        for record in step.records:
            finished[record.dataset_id] = record
        watch.step(step)
        watch.compare(core)
        check(core)
        assert all(core.state.ledger.reserved_bytes(name) <= 200 * GB for name in NODES)
        for known in core.state.datasets:
            core.why(known, now)
