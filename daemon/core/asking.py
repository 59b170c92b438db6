"""What a READY dataset asks for: its pipeline's request, the policy's decision over it, and so its bucket."""

from __future__ import annotations

from msgspec.structs import replace

from tiltd.plugins.api import Permanent, takes
from tiltd.policy.needs import asked_of
from tiltd.policy.predict import Asked
from tiltd.policy.shape import shape

from . import facts as f
from .deciding import Deciding, due_at, options_of, pipeline_of
from .desk import Desk
from .model import Dataset, Decision, Failure, Options, ResourceRequest, TiltSeries
from .waiting import Want

REJECTED = "rejected"
"""Reason of a failure: the pipeline refused the dataset before anything was submitted."""
REQUESTS_MAX = 4096
"""Requests remembered: what is asked for when a dataset is queued is asked for again when it is placed."""


class Asking:
    """A question costs the pipeline's own arithmetic, once for each record and decision."""

    def __init__(self, desk: Desk, deciding: Deciding) -> None:
        self._desk = desk
        self._deciding = deciding
        self._requests: dict[str, tuple[Dataset, Decision, ResourceRequest]] = {}

    def want(self, dataset: Dataset, decision: Decision) -> Want | None:
        """The bucket of this dataset.  A pipeline that cannot take it rejects it here."""
        assert dataset.series is not None
        if dataset.rescue:
            return self._rescue(dataset)
        pipeline = pipeline_of(dataset, decision)
        asked = self._asked_by_pipeline(dataset, dataset.series, pipeline, decision)
        if asked is None:
            return None
        return Want(
            request=self._shaped(dataset, asked, pipeline, decision),
            feed=dataset.feed,
            pipeline=pipeline,
            project=dataset.project,
            only_node="",
            excluded_nodes=dataset.excluded_nodes,
            due_seconds=decision.due_seconds if due_at(dataset, decision) else 0.0,
            destination=decision.destination,
        )

    def _rescue(self, dataset: Dataset) -> Want:
        stranded = next(a for a in dataset.attempts if a.attempt_id == dataset.rescue)
        request = ResourceRequest(
            cores=1, threads=1, walltime_seconds=3600.0, result_bytes=stranded.request.result_bytes
        )
        return Want(
            request=request,
            feed=dataset.feed,
            pipeline=dataset.pipeline,
            project=dataset.project,
            only_node=(stranded.nodes or stranded.placement.nodes)[0],
            excluded_nodes=(),
            destination=dataset.destination,
        )

    def _asked_by_pipeline(
        self, dataset: Dataset, series: TiltSeries, pipeline: str, decision: Decision
    ) -> ResourceRequest | None:
        """What the pipeline asks for; ``None`` if it cannot take the series, which is said on the dataset."""
        desk, options = self._desk, options_of(dataset, decision)
        if missing := self._no_pipeline(series, pipeline, options, decision):
            desk.hold(dataset, "no_pipeline", missing)
            return None
        try:
            request = desk.pipelines[pipeline].request(series, options)
        except Permanent as error:
            self._reject(dataset, error)
            return None
        except Exception as bug:  # a plugin's; it stops this dataset, not the daemon
            detail = f"the pipeline {pipeline} cannot say what it needs: {bug!r}; mend it, then release"
            desk.hold(dataset, "bug", detail)
            return None
        if len(self._requests) >= REQUESTS_MAX:
            self._requests.clear()
        self._requests[dataset.dataset_id] = (dataset, decision, request)
        return request

    def asked(self, dataset: Dataset, decision: Decision) -> Asked:
        """The bytes that its pipeline names for it, as they stand in the history: what is measured will be
        held against them.  Remembered while neither the record nor the decision changes."""
        assert dataset.series is not None
        known = self._requests.get(dataset.dataset_id)
        if known is not None and known[0] is dataset and known[1] is decision:
            return asked_of(known[2])
        pipeline = self._desk.pipelines[pipeline_of(dataset, decision)]
        return asked_of(pipeline.request(dataset.series, options_of(dataset, decision)))

    def forget(self, dataset_id: str) -> None:
        """It is READY no more."""
        self._requests.pop(dataset_id, None)

    def lift_no_pipeline(self, dataset: Dataset) -> None:
        """Since the last start its pipeline may have been installed, or another chosen by the policy."""
        if dataset.series is None or dataset.hold("no_pipeline") is None:
            return
        decision = self._deciding.decide(dataset)
        pipeline, options = pipeline_of(dataset, decision), options_of(dataset, decision)
        if not self._no_pipeline(dataset.series, pipeline, options, decision):
            self._desk.lift(dataset, "no_pipeline")

    def _no_pipeline(self, series: TiltSeries, pipeline: str, options: Options, decision: Decision) -> str:
        whose = f"rule {decision.rule}" if decision.pipeline else "its feed"
        if pipeline not in self._desk.pipelines:
            return f"the pipeline {pipeline} of {whose} is not installed"
        if not takes(self._desk.pipelines[pipeline], series.kind, options):
            return (
                f"no pipeline for {series.kind}: the pipeline {pipeline} of {whose} takes stacks, "
                "unless its option frames names a program that makes a stack of frames"
            )
        return ""

    def _shaped(
        self, dataset: Dataset, asked: ResourceRequest, pipeline: str, decision: Decision
    ) -> ResourceRequest:
        """The policy's word over the pipeline's, and the operator's over its priority."""
        assert dataset.series is not None
        shaped = shape(
            asked,
            dataset.series.total_bytes,
            self._desk.policy,
            decision=decision,
            pipeline=pipeline,
            samples=self._desk.state.samples,
            changes=dataset.changes,
            short={a.failure.failure_class for a in dataset.attempts if a.failure is not None},
        )
        if dataset.operator_priority:
            return replace(shaped, priority=shaped.priority + dataset.operator_priority)
        return shaped

    def _reject(self, dataset: Dataset, error: Permanent) -> None:
        failure = Failure(failure_class="config", reason=REJECTED, detail=str(error), spent=False)
        self._desk.record(
            f.DatasetRejected(at=self._desk.now, dataset_id=dataset.dataset_id, failure=failure)
        )
        self._desk.notice(
            "failed",
            f"{dataset.dataset_id} cannot be run: {error}",
            dataset.dataset_id,
            dataset,
            cause="config:rejected",
        )
