"""What a batchruntomo of the study's kind asks for; it runs nowhere but in the model."""

from __future__ import annotations

from tiltd.daemon.core.model import (
    Failure,
    JobSteps,
    Options,
    Outcome,
    Placement,
    ResourceRequest,
    TiltSeries,
    Verdict,
)
from tiltd.policy.predict import (
    PRIOR_MEMORY_PER_BYTE,
    PRIOR_SCRATCH_PER_BYTE,
    STUDY_BYTES,
    STUDY_SECONDS_ONE_CORE,
)

RESULT_PER_BYTE = 1.0
"""The trimmed volume as large as the stack: an assumption, the study does not tell."""


class StudyPipeline:
    """Pure, as every pipeline."""

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        size = series.total_bytes
        return ResourceRequest(
            cores=4,
            threads=4,
            memory_bytes=int(PRIOR_MEMORY_PER_BYTE * size),
            scratch_bytes=int(PRIOR_SCRATCH_PER_BYTE * size),
            result_bytes=int(RESULT_PER_BYTE * size),
            walltime_seconds=STUDY_SECONDS_ONE_CORE * size / STUDY_BYTES,
        )

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        return JobSteps(steps=())

    def judge(self, outcome: Outcome) -> Verdict:
        end = outcome.end
        if end.outcome == "success":
            return Verdict(verdict="good")
        failure = Failure(failure_class="walltime", reason=end.reason, detail=end.detail)
        return Verdict(verdict="failed", failure=failure)
