"""Predictions: the study's prior, then quantiles of what was measured, bounded and deterministic."""

from __future__ import annotations

import doctest
import json
import math
import random

import msgspec
import pytest

from tiltd.daemon.core.model import Measured
from tiltd.policy import predict as p

GB = 10**9


def learn(samples: p.Samples, seconds: float, size_bytes: int = GB, **more: float) -> p.Samples:
    measured = Measured(run_seconds=seconds, **more)  # type: ignore[arg-type]
    return p.learn(samples, pipeline="wbp", cores=4, threads=4, size_bytes=size_bytes, measured=measured)


def expect(samples: p.Samples, size_bytes: int = GB, cores: int = 4) -> p.Prediction:
    return p.predict(samples, pipeline="wbp", cores=cores, threads=4, size_bytes=size_bytes)


@pytest.mark.parametrize(("cores", "threads", "seconds"), [(1, 1, 320), (4, 4, 250), (4, 1, 320)])
def test_the_prior_is_the_studys(cores: int, threads: int, seconds: float) -> None:
    found = p.prior(cores=cores, threads=threads, size_bytes=2_600_000_000)
    assert found.seconds_p50 == pytest.approx(seconds, rel=0.01) and found.samples == 0
    assert found.seconds_p99 > found.seconds_p50


def test_the_priors_gains_end_between_4_and_8() -> None:
    at = {n: p.prior(cores=n, threads=n, size_bytes=2_600_000_000).seconds_p50 for n in (1, 2, 4, 6, 8, 64)}
    assert at[1] > at[2] > at[4] > at[6] == at[8] == at[64]


def test_history_of_the_same_kind_speaks() -> None:
    samples = p.Samples()
    for _ in range(20):
        samples = learn(
            samples, 100.0, peak_memory_bytes=2 * GB, peak_scratch_bytes=5 * GB, stage_in_seconds=10
        )
    found = expect(samples, 2 * GB)
    assert found.samples == 20 and found.seconds_p50 == pytest.approx(220)
    assert 220 < found.seconds_p99 < 330
    assert 4 * GB < found.memory_bytes_p99 < 6 * GB and 10 * GB < found.scratch_bytes_p99 < 15 * GB
    assert expect(samples, cores=8).samples == 0, "other cores, other class"


def test_few_samples_are_trusted_less() -> None:
    one, samples = learn(p.Samples(), 100.0), p.Samples()
    for _ in range(100):
        samples = learn(samples, 100.0)
    assert 200 < expect(one).seconds_p99 < 300 and expect(samples).seconds_p99 < 120


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_what_measured_nothing_teaches_nothing(seconds: float) -> None:
    assert learn(p.Samples(), seconds) == p.Samples()


def test_small_series_do_not_spoil_the_figures_per_byte() -> None:
    samples = learn(p.Samples(), 30.0, size_bytes=1000)
    assert expect(samples, GB).seconds_p50 == pytest.approx(300)
    assert expect(samples, 1000).seconds_p50 == pytest.approx(30)


def test_old_samples_are_forgotten() -> None:
    samples = p.Samples()
    for _ in range(300):
        samples = learn(samples, 1000.0)
    for _ in range(300):
        samples = learn(samples, 10.0)
    (known,) = samples.by_class.values()
    assert known.learnt == 600 and len(known.samples) <= p.SAMPLES_MAX and known.drifts == 1
    assert expect(samples).seconds_p99 < 12


def test_classes_are_bounded_and_the_least_recent_goes() -> None:
    samples = p.Samples()
    for cores in range(1, 100):
        measured = Measured(run_seconds=1.0)
        samples = p.learn(samples, pipeline="wbp", cores=cores, threads=1, size_bytes=GB, measured=measured)
        samples = learn(samples, 5.0)
    assert len(samples.by_class) == p.CLASSES_MAX
    assert expect(samples).samples > 0


def test_on_a_log_normal_history_p99_covers() -> None:
    rng, samples = random.Random(7), p.Samples()
    runs = [rng.lognormvariate(math.log(250), 0.2) for _ in range(2200)]
    for seconds in runs[:200]:
        samples = learn(samples, seconds)
    covered = sum(seconds <= expect(samples).seconds_p99 for seconds in runs[200:])
    assert covered >= 0.98 * 2000


def test_it_is_a_fold_that_can_be_stored_anywhere() -> None:
    rng, samples, half = random.Random(3), p.Samples(), p.Samples()
    for number in range(200):
        samples = learn(samples, rng.uniform(1, 1000), size_bytes=rng.randrange(10**10))
        if number == 99:
            half = msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(samples))), p.Samples)
            assert half == samples
    rng = random.Random(3)
    for number in range(200):
        seconds, size_bytes = rng.uniform(1, 1000), rng.randrange(10**10)
        if number > 99:
            half = learn(half, seconds, size_bytes=size_bytes)
    assert half == samples


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(p).failed == 0
