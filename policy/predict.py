"""Run time, memory and scratch to expect of a run, from its size and from what was measured before.

``Samples`` is part of the state: a value, bounded, and a function of the facts alone.  Samples are kept per
(pipeline, cores, threads) as figures *per byte of input*, and their quantiles with them, so a prediction
costs a look-up.  Without history the prior is the 2015 study's: a series of 2.6 GB on node-local disk took
320 s on one core and one thread and about 250 s on 4 and 4; gains ended between 4 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

from tiltd.daemon.core.model import Measured, Record

SAMPLES_MAX = 256
CLASSES_MAX = 64
"""Classes of (pipeline, cores, threads) kept; the one that learnt least recently is forgotten first."""

REFIT_EVERY = 16
"""From so many samples on the quantiles are worked out anew only at every sixteenth: sorting 256 figures
thrice would cost more than the decision that asks for them."""

SMALL_BYTES = 100_000_000
"""Below it a run's fixed costs (starting programs, looking at files) outweigh the bytes."""

STUDY_BYTES = 2_600_000_000
STUDY_SECONDS_ONE_CORE = 320.0
STUDY_EXPONENT = 0.178
"""320 s / 250 s = 4 ** 0.178."""
STUDY_CORES_USEFUL = 6
"""Gains ended between 4 and 8 cores."""
PRIOR_SPREAD = 2.0
"""p99 over median where nothing was measured: other disks and programs than the study's."""
PRIOR_MEMORY_PER_BYTE = 1.4
"""clip, the hungriest program measured, held 1.3 to 1.4 times the stack."""
PRIOR_SCRATCH_PER_BYTE = 21.0
"""Peak scratch over input was 15 to 21 in measured runs of batchruntomo (without SIRT)."""


class Sample(Record, array_like=True):
    """One delivered run.  Seconds cover staging too: the walltime has to."""

    seconds_per_byte: float
    memory_per_byte: float
    scratch_per_byte: float


class SampleClass(Record):
    """The newest samples of one (pipeline, cores, threads) and their quantiles, per byte.

    ``learnt`` counts all that ever came.
    """

    learnt: int = 0
    samples: tuple[Sample, ...] = ()
    seconds_p50: float = 0.0
    seconds_p99: float = 0.0
    memory_p99: float = 0.0
    scratch_p99: float = 0.0


class Samples(Record):
    by_class: dict[str, SampleClass] = {}


class Prediction(Record):
    """What to expect.  ``samples`` is 0 when it is the study's prior."""

    seconds_p50: float
    seconds_p99: float
    memory_bytes_p99: int
    scratch_bytes_p99: int
    samples: int = 0


def learn(
    samples: Samples, *, pipeline: str, cores: int, threads: int, size_bytes: int, measured: Measured
) -> Samples:
    """Take in one delivered run; what measured nothing (no run time) teaches nothing.

    Cost grows with ``SAMPLES_MAX``, not with history: about a microsecond, and a sort now and then.
    """
    seconds = measured.stage_in_seconds + measured.run_seconds + measured.stage_out_seconds
    if not (measured.run_seconds > 0 and seconds < float("inf")):
        return samples
    scale = max(size_bytes, SMALL_BYTES)
    sample = Sample(
        seconds_per_byte=seconds / scale,
        memory_per_byte=measured.peak_memory_bytes / scale,
        scratch_per_byte=measured.peak_scratch_bytes / scale,
    )
    key = _key(pipeline, cores, threads)
    by_class = dict(samples.by_class)
    by_class[key] = _with_sample(by_class.pop(key, SampleClass()), sample)
    while len(by_class) > CLASSES_MAX:
        del by_class[next(iter(by_class))]
    return Samples(by_class=by_class)


def predict(samples: Samples, *, pipeline: str, cores: int, threads: int, size_bytes: int) -> Prediction:
    """What a run of this size is likely to take."""
    known = samples.by_class.get(_key(pipeline, cores, threads))
    if known is None or not known.samples:
        return prior(cores=cores, threads=threads, size_bytes=size_bytes)
    scale = max(size_bytes, SMALL_BYTES)
    return Prediction(
        seconds_p50=known.seconds_p50 * scale,
        seconds_p99=known.seconds_p99 * scale,
        memory_bytes_p99=ceil(known.memory_p99 * scale),
        scratch_bytes_p99=ceil(known.scratch_p99 * scale),
        samples=len(known.samples),
    )


def prior(*, cores: int, threads: int, size_bytes: int) -> Prediction:
    """What the study would expect: a power law through its two points, flat from 6 cores on.

    >>> round(prior(cores=1, threads=1, size_bytes=2_600_000_000).seconds_p50)
    320
    >>> round(prior(cores=4, threads=4, size_bytes=2_600_000_000).seconds_p50)
    250
    """
    workers = min(max(1, min(cores, threads)), STUDY_CORES_USEFUL)
    scale = max(size_bytes, SMALL_BYTES)
    seconds = STUDY_SECONDS_ONE_CORE * scale / STUDY_BYTES * workers**-STUDY_EXPONENT
    return Prediction(
        seconds_p50=seconds,
        seconds_p99=seconds * PRIOR_SPREAD,
        memory_bytes_p99=ceil(PRIOR_MEMORY_PER_BYTE * scale),
        scratch_bytes_p99=ceil(PRIOR_SCRATCH_PER_BYTE * scale),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ascending figures that at least ``share`` of them do not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _with_sample(known: SampleClass, sample: Sample) -> SampleClass:
    newest = (*known.samples, sample)[-SAMPLES_MAX:]
    learnt = known.learnt + 1
    if learnt > REFIT_EVERY and learnt % REFIT_EVERY:
        return SampleClass(
            learnt=learnt,
            samples=newest,
            seconds_p50=known.seconds_p50,
            seconds_p99=known.seconds_p99,
            memory_p99=known.memory_p99,
            scratch_p99=known.scratch_p99,
        )
    seconds = sorted(s.seconds_per_byte for s in newest)
    # Few samples know little of their tail: one is doubled, ten get a third more, a hundred a tenth.
    caution = 1 + 1 / sqrt(len(newest))
    return SampleClass(
        learnt=learnt,
        samples=newest,
        seconds_p50=quantile(seconds, 0.5),
        seconds_p99=caution * quantile(seconds, 0.99),
        memory_p99=caution * quantile(sorted(s.memory_per_byte for s in newest), 0.99),
        scratch_p99=caution * quantile(sorted(s.scratch_per_byte for s in newest), 0.99),
    )


def _key(pipeline: str, cores: int, threads: int) -> str:
    return f"{pipeline}/{cores}/{threads}"
