"""Run time, memory and scratch to expect of a run, from its size and from what was measured before.

``Samples`` is part of the state: a value, bounded, and a function of the facts alone.  Samples are kept per
(pipeline, cores, threads) as figures *per byte of input*, and their quantiles with them, so a prediction
costs a look-up.  How quantiles are drawn from them, robust to outliers, drift and killed runs, stands in
:mod:`tiltd.policy.drift`; after a drift only the samples since it are kept.  Without history the prior is the
2015 study's: a series of 2.6 GB on node-local disk took 320 s on one core and one thread and about 250 s on
4 and 4; gains ended between 4 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log

from msgspec.structs import replace

from tiltd.daemon.core.model import Measured, Prediction, Record

from .drift import Watch, fit

__all__ = [
    "Correction",
    "Prediction",
    "Sample",
    "SampleClass",
    "Samples",
    "correction",
    "learn",
    "learn_killed",
    "predict",
    "prior",
    "quantile",
]

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
CORRECTION_SAMPLES = 16
CORRECTION_MARGIN = 1.05
CORRECTION_MAX = 4.0
"""Bounds of :func:`correction`: a formula that is wrong by more than that is wrong in another way."""

PRIOR_SPREAD = 2.0
"""p99 over median where nothing was measured: other disks and programs than the study's."""
PRIOR_MEMORY_PER_BYTE = 1.4
"""clip, the hungriest program measured, held 1.3 to 1.4 times the stack."""
PRIOR_SCRATCH_PER_BYTE = 21.0
"""Peak scratch over input was 15 to 21 in measured runs of batchruntomo (without SIRT)."""


FORMULA_SPREAD = 0.05
"""How far what runs take spreads around a pipeline's formula: recorded peaks of batchruntomo were 0.95 to
1.00 of it where nothing fell between two looks at the disk."""

USUAL_SPREAD = 0.3
"""How far runs of one kind spread around their middle before any were seen: p99 is twice the middle."""


class Sample(Record, array_like=True):
    """One run.  Seconds cover staging too: the walltime has to.  ``cut_off``: its walltime killed it, so
    that it would have taken longer; its memory and scratch are then lower bounds, or 0 for unknown.
    ``*_of_asked``: what it took of what its pipeline had asked for; 0 for unknown."""

    seconds_per_byte: float
    memory_per_byte: float
    scratch_per_byte: float
    cut_off: bool = False
    memory_of_asked: float = 0.0
    scratch_of_asked: float = 0.0


class SampleClass(Record):
    """The newest samples of one (pipeline, cores, threads) since their figures last moved, and their
    quantiles, per byte.  ``*_of_asked``: (the most that was taken, a p99 that leaves one wild run out).
    ``learnt`` counts all that ever came, ``drifts`` how often the figures moved."""

    learnt: int = 0
    samples: tuple[Sample, ...] = ()
    seconds_p50: float = 0.0
    seconds_p99: float = 0.0
    memory_p99: float = 0.0
    scratch_p99: float = 0.0
    memory_of_asked: tuple[float, float] = (0.0, 0.0)
    scratch_of_asked: tuple[float, float] = (0.0, 0.0)
    watch: Watch = Watch()
    drifts: int = 0


class Correction(Record):
    """Factors on what a pipeline asks, from what its runs took; 1 is no correction."""

    memory: float = 1.0
    scratch: float = 1.0
    samples: int = 0


class Samples(Record):
    by_class: dict[str, SampleClass] = {}


def learn(
    samples: Samples,
    *,
    pipeline: str,
    cores: int,
    threads: int,
    size_bytes: int,
    measured: Measured,
    asked_memory_bytes: int = 0,
    asked_scratch_bytes: int = 0,
) -> Samples:
    """Take in one delivered run; what measured nothing (no run time) teaches nothing.
    ``asked_*`` are what its pipeline asked for it, 0 for nothing.

    Cost grows with ``SAMPLES_MAX``, not with history: some microseconds, and a few sorts now and then.
    """
    seconds = measured.stage_in_seconds + measured.run_seconds + measured.stage_out_seconds
    if not (measured.run_seconds > 0 and seconds < float("inf")):
        return samples
    sample = replace(
        _sample(size_bytes, seconds, measured, cut_off=False),
        memory_of_asked=measured.peak_memory_bytes / asked_memory_bytes if asked_memory_bytes else 0.0,
        scratch_of_asked=measured.peak_scratch_bytes / asked_scratch_bytes if asked_scratch_bytes else 0.0,
    )
    return _learn(samples, _key(pipeline, cores, threads), sample)


def learn_killed(
    samples: Samples,
    *,
    pipeline: str,
    cores: int,
    threads: int,
    size_bytes: int,
    walltime_seconds: float,
    measured: Measured = Measured(),  # noqa: B008 - immutable
) -> Samples:
    """Take in one run that its walltime killed: it would have taken longer than that.  Cost as ``learn``."""
    if not 0 < walltime_seconds < float("inf"):
        return samples
    key = _key(pipeline, cores, threads)
    return _learn(samples, key, _sample(size_bytes, walltime_seconds, measured, cut_off=True))


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


def correction(samples: Samples, *, pipeline: str, cores: int, threads: int, least: float) -> Correction:
    """What history has to say of what this pipeline asks for, from the share that its runs took of it.

    Lowered to the most that was taken, and a twentieth, only after ``CORRECTION_SAMPLES`` runs and never
    below ``least``; raised to the 99th percentile, and a twentieth, at most to ``CORRECTION_MAX``.
    """
    known = samples.by_class.get(_key(pipeline, cores, threads))
    if known is None or not known.samples:
        return Correction()
    enough = len(known.samples) >= CORRECTION_SAMPLES
    return Correction(
        memory=_corrected(*known.memory_of_asked, enough, least),
        scratch=_corrected(*known.scratch_of_asked, enough, least),
        samples=len(known.samples),
    )


def _corrected(most: float, p99: float, enough: bool, least: float) -> float:
    if most <= 0:
        return 1.0
    if most <= 1.0:
        return min(1.0, max(least, most * CORRECTION_MARGIN)) if enough else 1.0
    return min(CORRECTION_MAX, max(1.0, p99 * CORRECTION_MARGIN))


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


def _sample(size_bytes: int, seconds: float, measured: Measured, *, cut_off: bool) -> Sample:
    scale = max(size_bytes, SMALL_BYTES)
    return Sample(
        seconds_per_byte=seconds / scale,
        memory_per_byte=measured.peak_memory_bytes / scale,
        scratch_per_byte=measured.peak_scratch_bytes / scale,
        cut_off=cut_off,
    )


def _learn(samples: Samples, key: str, sample: Sample) -> Samples:
    by_class = dict(samples.by_class)
    by_class[key] = _with_sample(by_class.pop(key, SampleClass()), sample)
    while len(by_class) > CLASSES_MAX:
        del by_class[next(iter(by_class))]
    return Samples(by_class=by_class)


def _with_sample(known: SampleClass, sample: Sample) -> SampleClass:
    newest = (*known.samples, sample)[-SAMPLES_MAX:]
    watch = known.watch.after(log(sample.seconds_per_byte), cut_off=sample.cut_off)
    learnt, moved = known.learnt + 1, watch.moved_since
    if moved:
        return _refit(newest[-moved:], watch, learnt=learnt, drifts=known.drifts + 1)
    if len(newest) <= REFIT_EVERY or learnt % REFIT_EVERY == 0 or watch.spread <= 0:
        return _refit(newest, watch, learnt=learnt, drifts=known.drifts)
    return replace(known, learnt=learnt, samples=newest, watch=watch)


def _refit(newest: tuple[Sample, ...], watch: Watch, *, learnt: int, drifts: int) -> SampleClass:
    """Work the quantiles out anew.  A spread once known stays a hint for the samples after a drift."""
    moved = watch.moved_since > 0
    cut_off = [s.cut_off for s in newest]
    usual = watch.spread if moved else USUAL_SPREAD
    seconds = fit([log(s.seconds_per_byte) for s in newest], cut_off, usual)
    base = Watch() if moved else watch
    return SampleClass(
        learnt=learnt,
        samples=newest,
        seconds_p50=exp(seconds.median),
        seconds_p99=exp(seconds.p99),
        memory_p99=_upper([s.memory_per_byte for s in newest]),
        scratch_p99=_upper([s.scratch_per_byte for s in newest]),
        memory_of_asked=_taken([s.memory_of_asked for s in newest]),
        scratch_of_asked=_taken([s.scratch_of_asked for s in newest]),
        watch=replace(base, middle=seconds.middle, spread=seconds.spread),
        drifts=drifts,
    )


def _upper(figures: list[float], spread: float = USUAL_SPREAD) -> float:
    """A bound for memory or scratch; 0 where nothing was measured."""
    known = [log(figure) for figure in figures if figure > 0]
    return exp(fit(known, [False] * len(known), spread).p99) if known else 0.0


def _taken(shares: list[float]) -> tuple[float, float]:
    """The most of what was asked that runs took, and the p99 of it."""
    return max(shares, default=0.0), _upper(shares, FORMULA_SPREAD)


def _key(pipeline: str, cores: int, threads: int) -> str:
    return f"{pipeline}/{cores}/{threads}"
