"""What the policy says of each dataset: its features go to the rules, and a decision comes back.

A rule can see how many datasets wait and what time it is somewhere.  Both are taken here, and what was
decided under them is decided again when they turn: the hour by an observation of the shell, the count when it
passes a figure that a rule names (at most every ``WAITING_PAUSE_SECONDS``, so that a count that swings around
a figure does not have everything decided again and again).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from msgspec.structs import replace

from tiltd.policy.directives import filled
from tiltd.policy.predict import Asked, predict
from tiltd.policy.retry import OPTION
from tiltd.policy.rules import decide, depends_on_completeness

from .desk import Desk
from .model import (
    CivilTime,
    CompletenessPolicy,
    Dataset,
    Decided,
    Decision,
    Features,
    Options,
    Placement,
    Policy,
    Sighting,
    State,
)

WAITING_PAUSE_SECONDS = 10.0
MADE_MAX = 4096
"""Decisions remembered: of those that wait, and it may be that all of a session come in at once."""
CIVIL_GRACE_SECONDS = 120.0
"""An hour that has passed is taken for the present one so long, until the shell tells the new one."""


class Deciding:
    """Memory: the civil times, the count of those that wait as rules see it.  A decision costs the rules."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.civil: dict[str, CivilTime] = {}
        self.waiting = 0
        self._looked_at = float("-inf")
        self._policy: Policy | None = None
        self._figures: list[float] = []
        self._completeness = False
        self._made: dict[str, tuple[Dataset, Features, Decision]] = {}

    # -- what rules can see --------------------------------------------------------------------------------

    def features(self, dataset: Dataset) -> Features:
        """Of a dataset, complete or still arriving."""
        known = self._made.get(dataset.dataset_id)
        if known is not None and known[0] is dataset:
            features = known[1]
            if features.waiting_count == self.waiting:
                return features
            return replace(features, waiting_count=self.waiting)
        series = dataset.series
        if series is None:
            return self._features(dataset, size_bytes=0, tilt_count=None)
        return self._features(
            dataset,
            size_bytes=series.total_bytes,
            tilt_count=series.tilt_count,
            image_size=series.image_size if any(series.image_size) else None,
            pixel_spacing_angstrom=series.pixel_spacing_angstrom,
        )

    def _features(
        self,
        dataset: Dataset,
        *,
        size_bytes: int,
        tilt_count: int | None,
        image_size: tuple[int, int] | None = None,
        pixel_spacing_angstrom: float | None = None,
    ) -> Features:
        labels = dataset.labels
        return Features(
            feed=dataset.feed,
            microscope=labels.get("microscope", ""),
            project=labels.get("project", ""),
            session=labels.get("session", ""),
            name=dataset.tilt_series_name,
            size_bytes=size_bytes,
            tilt_count=tilt_count,
            image_size=image_size,
            pixel_spacing_angstrom=pixel_spacing_angstrom,
            pipeline=dataset.asked_pipeline or dataset.pipeline,
            attempt_number=len(dataset.attempts) + 1,
            labels=labels,
            waiting_count=self.waiting,
            civil=self.civil,
        )

    # -- decisions -----------------------------------------------------------------------------------------

    def decide(self, dataset: Dataset) -> Decision:
        """The rules' word on it; remembered while it is READY, and neither the record nor anything that rules
        see changes."""
        if self._desk.policy is not self._policy:
            self._follow_policy()
        known = self._made.get(dataset.dataset_id)
        if known is not None and known[0] is dataset:
            return known[2]
        features = self.features(dataset)
        decision = decide(features, self._desk.policy)
        if dataset.state is State.READY:
            if len(self._made) >= MADE_MAX:
                self._made.clear()
            self._made[dataset.dataset_id] = (dataset, features, decision)
        return decision

    def forget(self, dataset_id: str) -> None:
        """It is READY no more."""
        self._made.pop(dataset_id, None)

    def completeness(self, dataset: Dataset | None, sighting: Sighting) -> CompletenessPolicy:
        """When this arriving series counts as complete; rules are asked only if one of them speaks of it."""
        policy = self._desk.policy
        if policy is not self._policy:
            self._follow_policy()
        if not self._completeness or dataset is None:
            return policy.completeness
        series = sighting.series
        size = series.image_size if series is not None and any(series.image_size) else None
        features = self._features(
            dataset,
            size_bytes=sighting.size_bytes,
            tilt_count=sighting.section_count or (series.tilt_count if series is not None else None),
            image_size=size,
            pixel_spacing_angstrom=series.pixel_spacing_angstrom if series is not None else None,
        )
        return decide(features, policy).completeness

    def hold_by_rule(self, dataset: Dataset, decision: Decision) -> bool:
        """Place, change or lift the policy's own hold; True if anything had to be done, which has the dataset
        looked at again.  What an operator lifted once is not held again for the same reason."""
        reason = decision.hold
        if not reason and dataset.missed_at is not None and self._desk.policy.deadlines.missed == "hold":
            reason = "its deadline was missed (deadlines.missed)"
        if reason in dataset.released_holds or dataset.rescue:
            reason = ""
        known = dataset.hold("policy")
        if (known.detail if known is not None else "") == reason:
            return False
        if reason:
            self._desk.hold(dataset, "policy", reason, origin=f"rule {decision.rule}")
        else:
            self._desk.lift(dataset, "policy", by="policy")
        return True

    def decided(self, dataset: Dataset, decision: Decision, placement: Placement, asked: Asked) -> Decided:
        """What is recorded of a decision with its placement.  ``asked`` is the pipeline's word."""
        pipeline = pipeline_of(dataset, decision)
        features = self.features(dataset)
        predicted = predict(
            self._desk.state.samples,
            pipeline=pipeline,
            cores=placement.cores,
            threads=placement.threads,
            size_bytes=features.size_bytes,
            asked=asked,
        )
        return Decided(
            rules=decision.rules,
            features=features,
            predicted=predicted,
            charged_core_seconds=placement.cores * len(placement.nodes) * predicted.seconds_p50,
            due_at=due_at(dataset, decision),
            pipeline=pipeline,
            options=options_of(dataset, decision),
            destination=decision.destination,
            asked_memory_bytes=asked.memory_bytes,
            asked_scratch_bytes=asked.scratch_bytes,
        )

    def with_directives(self, placement: Placement, dataset: Dataset, decision: Decision) -> Placement:
        """The rules' directives, filled in with what this dataset and placement are."""
        if not placement.directives:
            return placement
        features = self.features(dataset)
        values = {
            "feed": features.feed,
            "microscope": features.microscope,
            "project": features.project,
            "session": features.session,
            "pipeline": pipeline_of(dataset, decision),
            "account": placement.account,
            "queue": placement.queue,
            "priority": placement.priority,
            "nodes": len(placement.nodes),
            "cores": placement.cores,
            "threads": placement.threads,
        }
        return replace(placement, directives=filled(placement.directives, values))

    # -- what turns ----------------------------------------------------------------------------------------

    def adopt(self, civil: Iterable[CivilTime]) -> None:
        """A new policy: the zones that it names, and only those."""
        self.civil = {}
        self._follow_policy()
        self._looked_at = float("-inf")
        self.turned(civil)

    def turned(self, civil: Iterable[CivilTime]) -> None:
        """The hour has turned in these zones."""
        self.civil = {**self.civil, **{time.zone: time for time in civil}}
        self._made.clear()
        for time in self.civil.values():
            self._desk.wake(time.valid_until_at + CIVIL_GRACE_SECONDS, "civil")

    def lapsed(self) -> bool:
        """Forget the times whose successor did not come: no rule on hours holds there any more."""
        good = {
            zone: time
            for zone, time in self.civil.items()
            if time.valid_until_at + CIVIL_GRACE_SECONDS > self._desk.now
        }
        lapsed = len(good) < len(self.civil)
        self.civil = good
        self._made.clear()
        return lapsed

    def counted(self, waiting: int) -> bool:
        """Take the count of those that wait.  True if it passed a figure that a rule names."""
        if self._desk.policy is not self._policy:
            self._follow_policy()
        if not self._figures:
            self.waiting = waiting
            return False
        if bisect_right(self._figures, waiting) == bisect_right(self._figures, self.waiting):
            return False
        again_at = self._looked_at + WAITING_PAUSE_SECONDS
        if again_at > self._desk.now:
            self._desk.wake(again_at, "waiting")
            return False
        self.waiting, self._looked_at = waiting, self._desk.now
        self._made.clear()
        return True

    def _follow_policy(self) -> None:
        policy = self._desk.policy
        if policy is self._policy:
            return
        self._policy = policy
        self._made.clear()
        self._completeness = depends_on_completeness(policy)
        bounds = [c for rule in policy.rules for c in rule.conditions if c.key == "waiting"]
        figures = {c.least for c in bounds} | {c.most + 1 for c in bounds if c.most is not None}
        self._figures = sorted(figure for figure in figures if figure is not None)


def pipeline_of(dataset: Dataset, decision: Decision) -> str:
    """The rules' pipeline, else the feed's."""
    return decision.pipeline or dataset.asked_pipeline or dataset.pipeline


def options_of(dataset: Dataset, decision: Decision) -> Options:
    """The feed's options, the rules' over them, a repair's over these, the operator's over all.  Options
    belong to a pipeline: where rules choose another one, the feed's do not come along."""
    asked_pipeline = dataset.asked_pipeline or dataset.pipeline
    asked = dataset.asked_options if dataset.asked_options is not None else dataset.options
    if decision.pipeline and decision.pipeline != asked_pipeline:
        asked = {}
    return {**asked, **decision.options, **_repairs(dataset, decision), **dataset.operator_options}


def _repairs(dataset: Dataset, decision: Decision) -> Options:
    """Options that a failure was answered with; they belong to the pipeline that failed."""
    if not dataset.changes or pipeline_of(dataset, decision) != dataset.pipeline:
        return {}
    return {
        name.removeprefix(OPTION): value for name, value in dataset.changes.items() if name.startswith(OPTION)
    }


def option_origins(dataset: Dataset, decision: Decision, options: Options, policy: Policy) -> dict[str, str]:
    """Who set each of the options: ``operator``, ``policy rule NAME (FILE:LINE)``, ``feed NAME``, or, where
    the rules have changed since, ``policy`` as it was."""
    asked = dataset.asked_options if dataset.asked_options is not None else dataset.options
    setters = {
        key: f"policy rule {rule.name} ({policy.origins.get(f'rule.{rule.name}.set.options', '')})"
        for rule in policy.rules
        if rule.name in decision.rules
        for key in rule.sets.get("options", {})
    }
    origins = {}
    for key, value in options.items():
        if key in dataset.operator_options:
            origins[key] = "operator"
        elif f"{OPTION}{key}" in dataset.changes:
            origins[key] = "policy repair after a failure"
        elif key in setters and decision.options.get(key) == value:
            origins[key] = setters[key]
        elif asked.get(key) == value:
            origins[key] = f"feed {dataset.feed}"
        else:
            origins[key] = "policy as it was when it was placed"
    return origins


def due_at(dataset: Dataset, decision: Decision) -> float:
    """When its result is due; 0 is never."""
    if decision.due_seconds <= 0 or dataset.completed_at is None:
        return 0.0
    return dataset.completed_at + decision.due_seconds
