"""What one series is to be given: the policy's word over the pipeline's request.

The outcome is rounded up to a coarse grid.  The ready queue is bucketed by shape, and one look at a node
serves a whole bucket: with exact figures every series would be a bucket of its own.  Quarter steps of
powers of two (1, 1.25, 1.5, 1.75, 2, 2.5, ...) ask for at most 25 % more than was needed, and leave some
twelve shapes between 2 GB and 16 GB.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from tiltd.daemon.core.model import Policy, ResourceRequest

from .predict import Samples, predict
from .retry import factor

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
    pipeline: str = "",
    samples: Samples | None = None,
    changes: Mapping[str, float | str] | None = None,
) -> ResourceRequest:
    """Cores and threads by the policy; memory, scratch and walltime by factor and floor over the request.

    Memory and scratch (bytes): request x factor, or the policy's figure by size where the pipeline names
    none; at least the floor.  Walltime (seconds): p99 of what this ``pipeline`` took (``samples``), else
    what it asks, else by size; x factor, at least the floor, at most the ceiling.  ``changes``
    (``Dataset.changes``) multiply after the floors, so that "more walltime" is more.  Constant cost.
    """
    rule, changes = policy.resources, changes or {}
    memory = _amount(request.memory_bytes, rule.memory_factor, rule.memory_by_size.at(size_bytes))
    memory = max(memory, rule.memory_bytes_min) * factor(changes, "memory_factor")
    scratch = _amount(request.scratch_bytes, rule.scratch_factor, rule.scratch_by_size.at(size_bytes))
    cores, threads = _count(rule.cores.at(size_bytes)), _count(rule.threads.at(size_bytes))
    expected = _expected(request, size_bytes, policy, (pipeline, cores, threads), samples)
    seconds = max(rule.walltime_seconds_min, expected * rule.walltime_factor)
    seconds = round_up_seconds(seconds * factor(changes, "walltime_factor"))
    return replace(
        request,
        nodes=max(1, rule.nodes),
        cores=cores,
        threads=threads,
        memory_bytes=round_up_bytes(memory),
        scratch_bytes=round_up_bytes(max(scratch, rule.scratch_bytes_min)),
        walltime_seconds=min(seconds, rule.walltime_seconds_max),
        properties=tuple(sorted({*request.properties, *policy.placement.properties})),
        queue=rule.queue or request.queue,
    )


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
    )


def round_up_bytes(amount: float) -> int:
    """Up to the next quarter step of a power of two, at most 25 % more.

    >>> [round_up_bytes(n) for n in (0, 3, 9, 1024, 1025, 1281)]
    [0, 3, 10, 1024, 1280, 1536]
    """
    whole = int(amount) + (amount > int(amount))
    step = 1 << max(0, whole.bit_length() - 3)
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


def _amount(asked_bytes: int, times: float, by_size: float) -> float:
    return asked_bytes * times if asked_bytes > 0 else by_size


def _count(value: float) -> int:
    return max(1, int(value + 0.5))


def _expected(
    request: ResourceRequest,
    size_bytes: int,
    policy: Policy,
    run: tuple[str, int, int],
    samples: Samples | None,
) -> float:
    """Seconds that a run of (pipeline, cores, threads) is expected to take at most."""
    pipeline, cores, threads = run
    if samples is not None:
        found = predict(samples, pipeline=pipeline, cores=cores, threads=threads, size_bytes=size_bytes)
        if found.samples:
            return found.seconds_p99
    if request.walltime_seconds > 0:
        return on_cores(request.walltime_seconds, request.cores, cores)
    return policy.resources.walltime_by_size.at(size_bytes)
