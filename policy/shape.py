"""What one series is to be given: the policy's word over the pipeline's request.

The outcome is rounded up to a coarse grid.  The ready queue is bucketed by shape, and one look at a node
serves a whole bucket: with exact figures every series would be a bucket of its own.  Quarter steps of
powers of two (1, 1.25, 1.5, 1.75, 2, 2.5, ...) ask for at most 25 % more than was needed, and leave some
twelve shapes between 2 GB and 16 GB.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil

from msgspec.structs import replace

from tiltd.daemon.core.model import Decision, Features, Policy, ResourceRequest

from .needs import Needs, needs
from .predict import Samples, longest
from .retry import factor
from .rules import decide

WALLTIME_GRAIN_SECONDS = 1800.0
"""The grid of walltimes is laid out from half an hour: 30, 37.5, 45, 52.5, 60, 75 min, ..."""

CORES_EXPONENT = 0.5
"""Time grows with (cores asked / cores given) ** 0.5 where a node has fewer cores than asked: sub-linear,
between the 2015 study's 0.18 (320 s on 1 core, 250 s on 4) and the 1.0 of a program that scales perfectly;
what is missing for the latter is covered by ``walltime_factor`` (3: enough for 4 cores -> 1)."""


def shape(
    request: ResourceRequest,
    size_bytes: int,
    policy: Policy,
    *,
    decision: Decision | None = None,
    pipeline: str = "",
    samples: Samples | None = None,
    changes: Mapping[str, float | str] | None = None,
    short: Collection[str] = (),
) -> ResourceRequest:
    """Cores and threads by the decision; memory, scratch and walltime by factor and floor over the request.

    Memory and scratch (bytes): a rule's plain word, else what history makes of the request (``needs.py``;
    ``short`` as there) x factor, or of the figure by size where the pipeline names none; at least the floor.
    Walltime: a rule's plain word, else p99 of what this ``pipeline`` took (``samples``), else what it asks,
    else by size; x factor, at least the floor; at most the ceiling.  ``changes`` (``Dataset.changes``)
    multiply after the floors, so that "more walltime" is more.  Without a ``decision`` it is that for a
    dataset of which only the size is known.
    """
    decision = decision or decide(Features(size_bytes=size_bytes, pipeline=pipeline), policy)
    need = needs(
        request, size_bytes, decision, policy.learning, pipeline=pipeline, samples=samples, short=short
    )
    memory, scratch = _bytes(request, need, decision)
    seconds = _walltime(request, size_bytes, decision, pipeline, samples)
    if changes:
        memory, scratch, seconds = _changed(changes, memory, scratch, seconds)
    return replace(
        request,
        nodes=max(1, decision.nodes),
        cores=decision.cores,
        threads=decision.threads,
        memory_bytes=round_up_bytes(memory),
        scratch_bytes=round_up_bytes(scratch),
        walltime_seconds=min(round_up_seconds(seconds), decision.walltime_seconds_max),
        result_bytes=round_up_bytes(request.result_bytes),
        properties=_properties(request, decision),
        queue=decision.queue or request.queue,
        walltime_seconds_max=decision.walltime_seconds_max,
        only_nodes=decision.only_nodes,
        not_nodes=decision.not_nodes,
        account=decision.account,
        priority=decision.priority,
        directives=decision.directives,
        rule=decision.rule,
        cores_min=min(decision.cores_min, decision.cores),
    )


def _changed(
    changes: Mapping[str, float | str], memory: float, scratch: float, seconds: float
) -> tuple[float, float, float]:
    """What failures before have had changed."""
    return (
        memory * factor(changes, "memory_factor"),
        scratch * factor(changes, "scratch_factor"),
        seconds * factor(changes, "walltime_factor"),
    )


def _properties(request: ResourceRequest, decision: Decision) -> tuple[str, ...]:
    if not (request.properties or decision.properties):
        return ()
    return tuple(sorted({*request.properties, *decision.properties}))


def key(request: ResourceRequest) -> tuple[object, ...]:
    """What two shaped requests must share to be placed alike; the bytes of the result do not matter there."""
    return (
        request.nodes,
        request.cores,
        request.threads,
        request.memory_bytes,
        request.scratch_bytes,
        request.walltime_seconds,
        request.properties,
        request.queue,
        request.walltime_seconds_max,
        request.only_nodes,
        request.not_nodes,
        request.account,
        request.priority,
        request.directives,
        request.rule,
        request.cores_min,
    )


def round_up_bytes(amount: float) -> int:
    """Up to the next quarter step of a power of two, at most 25 % more.

    >>> [round_up_bytes(n) for n in (0, 3, 9, 1024, 1025, 1281)]
    [0, 3, 10, 1024, 1280, 1536]
    """
    whole = ceil(amount)
    if whole < 8:
        return whole
    step = 1 << whole.bit_length() - 3
    return -(-whole // step) * step


def round_up_seconds(seconds: float) -> float:
    """Up to the next quarter step of half an hour times a power of two.

    >>> [round_up_seconds(60.0 * minutes) / 60 for minutes in (30, 31, 61, 170)]
    [30.0, 37.5, 75.0, 180.0]
    """
    grid = WALLTIME_GRAIN_SECONDS / 1024
    return round_up_bytes(max(0.0, seconds) / grid) * grid


def on_cores(seconds: float, asked: int, given: int) -> float:
    """A walltime meant for ``asked`` cores, stretched for the ``given`` ones."""
    return seconds * (asked / given) ** CORES_EXPONENT if 0 < given < asked else seconds


def _bytes(request: ResourceRequest, need: Needs, decision: Decision) -> tuple[float, float]:
    """Memory and scratch, before retries have had their say."""
    memory: float | None = decision.memory_bytes
    scratch: float | None = decision.scratch_bytes
    if memory is None:
        times = decision.memory_factor if request.memory_bytes else 1.0
        memory = ceil(max(need.memory_bytes * times, decision.memory_bytes_min))
    if scratch is None:
        times = decision.scratch_factor if request.scratch_bytes else 1.0
        scratch = ceil(max(need.scratch_bytes * times, decision.scratch_bytes_min))
    return memory, scratch


def _walltime(
    request: ResourceRequest, size_bytes: int, decision: Decision, pipeline: str, samples: Samples | None
) -> float:
    """Seconds to ask for, before retries have had their say."""
    if decision.walltime_seconds is not None:
        return decision.walltime_seconds
    expected = _expected(request, size_bytes, decision, pipeline, samples)
    return max(decision.walltime_seconds_min, expected * decision.walltime_factor)


def _expected(
    request: ResourceRequest, size_bytes: int, decision: Decision, pipeline: str, samples: Samples | None
) -> float:
    """Seconds that a run is expected to take at most."""
    cores, threads = decision.cores, decision.threads
    if samples is not None:
        found = longest(samples, pipeline=pipeline, cores=cores, threads=threads, size_bytes=size_bytes)
        if found is not None:
            return found
    if request.walltime_seconds > 0:
        return on_cores(request.walltime_seconds, request.cores, cores)
    return decision.walltime_by_size_seconds
