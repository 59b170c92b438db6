"""Run time, memory and scratch to expect of a run, from its size and from what was measured before.

``Samples`` is part of the state: a value, bounded, and a function of the facts alone.  Samples are kept per
(pipeline, cores, threads) as figures *per byte of input*, and their quantiles with them, so a prediction
costs a look-up.  Peaks of memory and scratch are kept a second time *per byte that the pipeline asked for*:
it knows the images and its options, so where it names an amount, history says by how much it is wrong.  How
quantiles are drawn, robust to outliers, drift and killed runs, stands in :mod:`tiltd.policy.drift`; after a
drift only the samples since it are kept.  Without history the prior is the 2015 study's: a series of 2.6 GB
on node-local disk took 320 s on one core and one thread and about 250 s on 4 and 4; gains ended between 4 and
8.  What is *asked* of memory and scratch by all this stands in :mod:`tiltd.policy.needs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, exp, log
from operator import attrgetter

from msgspec.structs import replace

from tiltd.daemon.core.model import Measured, Prediction, Record

from .drift import Watch, fit

__all__ = [
    "Asked",
    "Peak",
    "Prediction",
    "Sample",
    "SampleClass",
    "Samples",
    "learn",
    "learn_killed",
    "longest",
    "peaks",
    "predict",
    "prior",
    "quantile",
]

SAMPLES_MAX = 256
CLASSES_MAX = 64
"""Classes of (pipeline, cores, threads) kept; the one that learnt least recently is forgotten first."""

REFIT_EVERY = 16
REFIT_SHARE = 1 / 4
"""From ``REFIT_EVERY`` samples on the quantiles are worked out anew only at every sixteenth, and when a
quarter of what is kept is new: sorting 256 figures thrice would cost more than the decision that asks."""

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


SCRATCH_BELIEVED = 3.0
"""A peak on scratch was files on a disk, so up to three times the usual it is never taken for a slip of the
measurement: too little scratch fails runs, too much only keeps room from others for a while."""

USUAL_SPREAD = 0.3
"""How far runs of one kind spread around their middle before any were seen: p99 is twice the middle."""


class Sample(Record, array_like=True):
    """One run.  Seconds cover staging too: the walltime has to.  ``cut_off``: its walltime killed it, so
    that it would have taken longer; its memory and scratch are then lower bounds, or 0 for unknown.
    ``*_of_asked`` is the peak over what the pipeline named; 0 where it named nothing."""

    seconds_per_byte: float
    memory_per_byte: float
    scratch_per_byte: float
    cut_off: bool = False
    memory_of_asked: float = 0.0
    scratch_of_asked: float = 0.0


class Peak(Record):
    """Of ``runs`` measured: the median, a bound that the next one exceeds once in a hundred, the largest that
    was seen (what lies ``drift.WILD`` spreads beyond the middle not counted), and where by their own spread
    hardly any lies beyond.  0 runs: nothing is known."""

    p50: float = 0.0
    p99: float = 0.0
    largest: float = 0.0
    far: float = 0.0
    runs: int = 0

    def times(self, scale: float) -> Peak:
        return Peak(
            p50=self.p50 * scale,
            p99=self.p99 * scale,
            largest=self.largest * scale,
            far=self.far * scale,
            runs=self.runs,
        )


class SampleClass(Record):
    """The newest samples of one (pipeline, cores, threads) since their figures last moved, and their
    quantiles, per byte of input or ``of_asked``.  ``learnt`` counts all that ever came, ``drifts`` how often
    the figures moved."""

    learnt: int = 0
    samples: tuple[Sample, ...] = ()
    seconds_p50: float = 0.0
    seconds_p99: float = 0.0
    memory: Peak = Peak()
    scratch: Peak = Peak()
    memory_of_asked: Peak = Peak()
    scratch_of_asked: Peak = Peak()
    watch: Watch = Watch()
    drifts: int = 0


_NOTHING_LEARNT = SampleClass()


class Samples(Record):
    by_class: dict[str, SampleClass] = {}


class Asked(Record):
    """Bytes that the pipeline itself named for a run, before history and policy; 0: it named none."""

    memory_bytes: int = 0
    scratch_bytes: int = 0


NOTHING_ASKED = Asked()


def learn(
    samples: Samples,
    *,
    pipeline: str,
    cores: int,
    threads: int,
    size_bytes: int,
    measured: Measured,
    asked: Asked = NOTHING_ASKED,
) -> Samples:
    """Take in one delivered run; what measured nothing (no run time) teaches nothing.

    Cost grows with ``SAMPLES_MAX``, not with history: some microseconds, and a few sorts now and then.
    """
    seconds = measured.stage_in_seconds + measured.run_seconds + measured.stage_out_seconds
    if not (measured.run_seconds > 0 and seconds < float("inf")):
        return samples
    sample = _sample(size_bytes, seconds, measured, asked, cut_off=False)
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
    asked: Asked = NOTHING_ASKED,
) -> Samples:
    """Take in one run that its walltime killed: it would have taken longer than that.  Cost as ``learn``."""
    if not 0 < walltime_seconds < float("inf"):
        return samples
    sample = _sample(size_bytes, walltime_seconds, measured, asked, cut_off=True)
    return _learn(samples, _key(pipeline, cores, threads), sample)


def predict(
    samples: Samples,
    *,
    pipeline: str,
    cores: int,
    threads: int,
    size_bytes: int,
    asked: Asked = NOTHING_ASKED,
) -> Prediction:
    """What a run of this size is likely to take.  Where no peak was measured it is what the pipeline asked,
    and the study's where it asked nothing."""
    known = samples.by_class.get(_key(pipeline, cores, threads), _NOTHING_LEARNT)
    scale = max(size_bytes, SMALL_BYTES)
    memory = _by(known.memory_of_asked, asked.memory_bytes, known.memory, scale)
    scratch = _by(known.scratch_of_asked, asked.scratch_bytes, known.scratch, scale)
    memory_bytes = ceil(memory[0].p99 * memory[1]) or asked.memory_bytes
    scratch_bytes = ceil(scratch[0].p99 * scratch[1]) or asked.scratch_bytes
    if known.samples and memory_bytes and scratch_bytes:
        seconds_p50, seconds_p99 = known.seconds_p50 * scale, known.seconds_p99 * scale
    else:
        expected = prior(cores=cores, threads=threads, size_bytes=size_bytes)
        seconds_p50 = known.seconds_p50 * scale if known.samples else expected.seconds_p50
        seconds_p99 = known.seconds_p99 * scale if known.samples else expected.seconds_p99
        memory_bytes = memory_bytes or expected.memory_bytes_p99
        scratch_bytes = scratch_bytes or expected.scratch_bytes_p99
    return Prediction(
        seconds_p50=seconds_p50,
        seconds_p99=seconds_p99,
        memory_bytes_p99=memory_bytes,
        scratch_bytes_p99=scratch_bytes,
        samples=len(known.samples),
        memory_bytes_p50=ceil(memory[0].p50 * memory[1]),
        scratch_bytes_p50=ceil(scratch[0].p50 * scratch[1]),
    )


def longest(samples: Samples, *, pipeline: str, cores: int, threads: int, size_bytes: int) -> float | None:
    """Seconds that hardly any run of this size passes, by what was measured; ``None`` where nothing was."""
    known = samples.by_class.get(_key(pipeline, cores, threads))
    return known.seconds_p99 * max(size_bytes, SMALL_BYTES) if known is not None and known.samples else None


def peaks(
    samples: Samples,
    *,
    pipeline: str,
    cores: int,
    threads: int,
    size_bytes: int,
    asked: Asked = NOTHING_ASKED,
) -> tuple[Peak, Peak]:
    """Bytes of memory and of scratch at the peak of a run of this size: by what the pipeline asked where that
    was ever held against a measurement, else by the size."""
    known = samples.by_class.get(_key(pipeline, cores, threads), _NOTHING_LEARNT)
    scale = max(size_bytes, SMALL_BYTES)
    memory = _by(known.memory_of_asked, asked.memory_bytes, known.memory, scale)
    scratch = _by(known.scratch_of_asked, asked.scratch_bytes, known.scratch, scale)
    return memory[0].times(memory[1]), scratch[0].times(scratch[1])


def _by(of_asked: Peak, asked_bytes: int, per_byte: Peak, scale: float) -> tuple[Peak, float]:
    """The peak that counts, and the bytes that it is to be multiplied by."""
    return (of_asked, asked_bytes) if asked_bytes > 0 and of_asked.runs > 0 else (per_byte, scale)


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


def _sample(size_bytes: int, seconds: float, measured: Measured, asked: Asked, *, cut_off: bool) -> Sample:
    scale = max(size_bytes, SMALL_BYTES)
    memory, scratch = max(0, measured.peak_memory_bytes), max(0, measured.peak_scratch_bytes)
    return Sample(
        seconds_per_byte=seconds / scale,
        memory_per_byte=memory / scale,
        scratch_per_byte=scratch / scale,
        cut_off=cut_off,
        memory_of_asked=memory / asked.memory_bytes if asked.memory_bytes > 0 else 0.0,
        scratch_of_asked=scratch / asked.scratch_bytes if asked.scratch_bytes > 0 else 0.0,
    )


def _learn(samples: Samples, key: str, sample: Sample) -> Samples:
    by_class = dict(samples.by_class)
    by_class[key] = _with_sample(by_class.pop(key, SampleClass()), sample)
    while len(by_class) > CLASSES_MAX:
        del by_class[next(iter(by_class))]
    return Samples(by_class=by_class)


def _with_sample(known: SampleClass, sample: Sample) -> SampleClass:
    newest = known.samples[1 - SAMPLES_MAX :] + (sample,)  # noqa: RUF005 - copies them once less
    watch = known.watch.after(log(sample.seconds_per_byte), cut_off=sample.cut_off)
    learnt, moved = known.learnt + 1, watch.moved_since
    if moved:
        return _refit(newest[-moved:], watch, learnt=learnt, drifts=known.drifts + 1)
    fresh = learnt % max(REFIT_EVERY, int(REFIT_SHARE * len(newest))) == 0
    if len(newest) <= REFIT_EVERY or fresh or watch.spread <= 0 or _higher(known, sample):
        return _refit(newest, watch, learnt=learnt, drifts=known.drifts)
    return replace(known, learnt=learnt, samples=newest, watch=watch)


def _higher(known: SampleClass, sample: Sample) -> bool:
    """Memory or scratch beyond all that was seen: the next run is to know of it."""
    return (
        sample.memory_per_byte > known.memory.largest
        or sample.scratch_per_byte > known.scratch.largest
        or sample.memory_of_asked > known.memory_of_asked.largest
        or sample.scratch_of_asked > known.scratch_of_asked.largest
    )


def _refit(newest: tuple[Sample, ...], watch: Watch, *, learnt: int, drifts: int) -> SampleClass:
    """Work the quantiles out anew.  A spread once known stays a hint for the samples after a drift."""
    moved = watch.moved_since > 0
    cut_off = [*map(attrgetter("cut_off"), newest)]
    usual = watch.spread if moved else USUAL_SPREAD
    seconds = fit([*map(log, map(attrgetter("seconds_per_byte"), newest))], cut_off, usual)
    base = Watch() if moved else watch
    return SampleClass(
        learnt=learnt,
        samples=newest,
        seconds_p50=exp(seconds.median),
        seconds_p99=exp(seconds.p99),
        memory=_peak(map(attrgetter("memory_per_byte"), newest)),
        scratch=_peak(map(attrgetter("scratch_per_byte"), newest), SCRATCH_BELIEVED),
        memory_of_asked=_peak(map(attrgetter("memory_of_asked"), newest)),
        scratch_of_asked=_peak(map(attrgetter("scratch_of_asked"), newest), SCRATCH_BELIEVED),
        watch=replace(base, middle=seconds.middle, spread=seconds.spread),
        drifts=drifts,
    )


def _peak(figures: Iterable[float], believed: float = 1.0) -> Peak:
    """Of those figures that were measured; up to ``believed`` times the middle none is taken for wild."""
    known = [*map(log, filter(None, figures))]
    if not known:
        return Peak()
    found = fit(known, (), USUAL_SPREAD, log(believed))
    return Peak(
        p50=exp(found.median),
        p99=exp(found.p99),
        largest=exp(found.largest),
        far=exp(found.far),
        runs=len(known),
    )


@lru_cache(maxsize=256)
def _key(pipeline: str, cores: int, threads: int) -> str:
    return f"{pipeline}/{cores}/{threads}"
