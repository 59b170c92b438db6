"""What is asked of memory and scratch: the pipeline's word, held against the peaks that runs really had.

    pipeline's word (by size where it names none) --more than it said was measured--> raised, at once
                                                  --runs_min runs needed less-------> lowered, with a margin

Raised at most to ``most`` times the pipeline's word, lowered at most to ``*_least`` of it, to what the
pipeline says is its largest single need, and for scratch to the input, which is copied there whole.  A series
that ran out of memory or scratch before gets the pipeline's word or more.

Memory goes by the 99th percentile of what was measured: a run that is killed for it is tried again with more.
Scratch goes by the largest peak of the runs that are kept (or by the 99th percentile, if that bound is
higher) with a margin, and by what their spread lets expect, because other series on the node have booked the
rest: the pipeline's word stands only where no run is to be expected beyond it.
"""

from __future__ import annotations

from collections.abc import Collection

from tiltd.daemon.core.model import Decision, LearningPolicy, Record, ResourceRequest

from .predict import Asked, Peak, Samples, peaks

__all__ = ["Needs", "asked_of", "needs"]


SLACK = 0.001
"""A pipeline that is right to a thousandth (a file system's blocks, say) is right."""


class Needs(Record):
    """Bytes, before the policy's factors and floors.  ``*_runs``: the measured runs that moved it; 0 where it
    is the pipeline's word."""

    memory_bytes: float
    scratch_bytes: float
    memory_runs: int = 0
    scratch_runs: int = 0


def needs(
    request: ResourceRequest,
    size_bytes: int,
    decision: Decision,
    learning: LearningPolicy,
    *,
    pipeline: str = "",
    samples: Samples | None = None,
    short: Collection[str] = (),
) -> Needs:
    """For what a pipeline asks.  ``short``: the classes of failure ("memory", "scratch") that the series met
    before.  Cost: a look-up."""
    asked_memory = request.memory_bytes or decision.memory_by_size_bytes
    asked_scratch = request.scratch_bytes or decision.scratch_by_size_bytes
    if samples is None:
        return Needs(memory_bytes=asked_memory, scratch_bytes=asked_scratch)
    memory, scratch = peaks(
        samples,
        pipeline=pipeline,
        cores=decision.cores,
        threads=decision.threads,
        size_bytes=size_bytes,
        asked=asked_of(request),
    )
    memory_bytes = _moved(
        asked_memory,
        max(request.memory_bytes_least, asked_memory * (1.0 if "memory" in short else learning.memory_least)),
        memory,
        bound=memory.p99 * learning.memory_margin,
        few=memory.largest * learning.memory_margin,
        learning=learning,
    )
    most_scratch = max(scratch.p99, scratch.largest) * learning.scratch_margin
    scratch_bytes = _moved(
        asked_scratch,
        max(size_bytes, asked_scratch * (1.0 if "scratch" in short else learning.scratch_least)),
        scratch,
        bound=max(most_scratch, scratch.far),
        few=scratch.largest * learning.scratch_margin,
        learning=learning,
        beyond=scratch.far,
    )
    return Needs(
        memory_bytes=memory_bytes,
        scratch_bytes=scratch_bytes,
        memory_runs=memory.runs if memory_bytes != asked_memory else 0,
        scratch_runs=scratch.runs if scratch_bytes != asked_scratch else 0,
    )


def asked_of(request: ResourceRequest) -> Asked:
    """What of a pipeline's request peaks are held against."""
    return Asked(memory_bytes=request.memory_bytes, scratch_bytes=request.scratch_bytes)


def _moved(
    asked: float,
    least: float,
    peak: Peak,
    *,
    bound: float,
    few: float,
    learning: LearningPolicy,
    beyond: float = 0.0,
) -> float:
    """``bound`` is what enough runs say, ``few`` what fewer do; it is never lowered below ``least``.

    The pipeline's word stands while no run needed more, and none is to be expected ``beyond`` it.
    """
    enough = peak.runs >= learning.runs_min
    word = asked * (1 + SLACK)
    if peak.largest > word or (enough and beyond > word):
        return max(asked, min(bound if enough else few, asked * learning.most))
    return max(min(asked, bound), min(asked, least)) if enough else asked
